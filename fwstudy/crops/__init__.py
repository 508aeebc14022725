"""Format 2, a crop set: its manifest and arrays, face boxes, composites of parts."""
