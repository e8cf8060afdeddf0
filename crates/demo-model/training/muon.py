"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices and convolutions, in float32.

torch.optim.Muon takes matrices alone and orthogonalises in bfloat16, which is slow on processors without such units.
"""
import torch

# Polar Express (Amsel et al. 2025, arXiv 2505.16932): (a, b, c) of its five odd polynomials a x + b x^3 + c x^5.
POLYNOMIALS = [(8.28721201814563, -23.595886519098837, 17.300387312530933), (4.107059111542203, -2.9478499167379106, .5448431082926601),
               (3.9486908534822946, -2.908902115962949, .5518191394370137), (3.3184196573706015, -2.488488024314874, .51004894012372),
               (2.300652019954817, -1.6689039845747493, .4188073119525673)]


def orthogonal(x):
    """About U V^T of each matrix U S V^T of the batch `x` (..., m, n).

    The polynomials are multiplied out on the Gram matrix, min(m, n) wide, so that the long side costs two products in all instead of two a step.
    """
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    gram, whole = x @ x.mT, None
    one = torch.eye(gram.shape[-1])
    for k, (a, b, c) in enumerate(POLYNOMIALS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * one
        whole = factor if whole is None else factor @ whole
        if k + 1 < len(POLYNOMIALS):
            gram = factor @ (factor @ gram)
    x = whole @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of the orthogonalised momentum, scaled so that AdamW's learning rates fit (Liu et al. 2025, arXiv 2502.16982); convolutions count as (out, in h w)."""

    def __init__(self, params, lr, momentum=.95, weight_decay=1e-2):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            alike = {}
            for p in g["params"]:
                alike.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for shape, params in alike.items():
                ways = []
                for p in params:
                    if p not in self.state:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                    m = self.state[p]["momentum"]
                    m.lerp_(p.grad, 1 - g["momentum"])
                    ways.append(p.grad.lerp(m, g["momentum"]).reshape(shape))  # Nesterov's
                for p, way in zip(params, orthogonal(torch.stack(ways))):
                    p.mul_(1 - g["lr"] * g["weight_decay"]).sub_(way.reshape(p.shape), alpha=.2 * max(shape) ** .5 * g["lr"])
