"""The command `make explain`: a verdict on a picture or clip of yours, as a sum.

`page` has its captions, `files.describe` the words of the verdict.
"""
