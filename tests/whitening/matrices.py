"""Covariances and features with known properties."""

import torch


def spd(size, condition=10.0, blocks=(), dtype=torch.float64):
    """Symmetric positive definite, eigenvalues evenly spaced in logarithm from 1 to 1/condition."""
    vectors = torch.linalg.qr(torch.randn(*blocks, size, size, dtype=torch.float64))[0]
    exponents = torch.linspace(0, 1, size, dtype=torch.float64)
    return ((vectors * condition**-exponents) @ vectors.mT).to(dtype)


def correlated(*shape, dtype=torch.float32):
    """Features (N, C, H, W) with correlated channels and means away from 0."""
    mixing = torch.randn(shape[1], shape[1], dtype=dtype) + 2 * torch.eye(shape[1], dtype=dtype)
    return torch.einsum("dc,nchw->ndhw", mixing, torch.randn(shape, dtype=dtype)) + 3


def residual(whitening, matrix):
    identity = torch.eye(matrix.shape[-1], dtype=torch.float64)
    return (whitening.double() @ matrix.double() @ whitening.double().mT - identity).abs().max()
