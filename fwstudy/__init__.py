"""fwstudy: a reproducible study of face manipulation detection via feature whitening."""

__version__ = "0.1.0"
