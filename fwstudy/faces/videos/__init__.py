"""Readers of data sets of videos; a new one is a function in a module here and a name in `faces.sources`."""
