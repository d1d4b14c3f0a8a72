import numpy as np
import torch

from gramgan_plugin.search.tree import principal_axes


def test_principal_axes():
    """Those of numpy's covariance matrix, the largest variance first."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)) * [1, 9, 3, 0.1] @ np.linalg.qr(rng.normal(size=(4, 4)))[0] + 5
    mean, axes = principal_axes(torch.from_numpy(rows.astype(np.float32)))
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-12)
    spread = axes.T @ np.cov(rows.T) @ axes
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    np.testing.assert_allclose(spread, np.diag(variances), rtol=1e-4, atol=1e-4)
