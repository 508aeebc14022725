"""Faces: rendered people, face photographs, and videos that were forged elsewhere. `sources` names them."""
