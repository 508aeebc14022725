"""The study's own open face data: rendered people, face photographs, and forgeries with exact truth."""
