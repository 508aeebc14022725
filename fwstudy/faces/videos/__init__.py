"""Readers of data sets of videos.

A new one is a `Reader` (see `layouts`) named in
`fwstudy.params.VIDEO_SOURCES`; outside `layouts`, also in `faces.sources._READERS`."""
