"""The four families of forgeries, and single parts.

A new family is a name in `fwstudy.labels.FAMILIES`, a function in `families`, and donors in
`rendering.dataset.build_clip`; for photographs also in `photos.choose_donors`, which else skip it.
Random numbers of forged parts are counted behind the families, so they change with it.
"""
