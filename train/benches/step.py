"""The training step of `step.rs` in PyTorch, for comparison.

`step.rs` passes the shape, so it has one definition. The model is BitNet b1.58: RMSNorm, rotary
positions, sub-norms, squared ReLU, a tied head; linear layers round weights to trits (absmean) and
activations to int8 (absmax per token) with straight-through gradients. The step is cross entropy,
backward, clipping and AdamW in f32 on the CPU. All of it is the fastest form that PyTorch offers
here: fused attention, fused AdamW, and `torch.compile` for the mode `compiled`.

Prints the median time of a step in seconds and the peak memory in MiB.
"""

import argparse
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class BitLinear(nn.Linear):
    """y = Q(x) Q(W)^T; gradients pass both quantizers unchanged."""

    def forward(self, x):
        w = self.weight
        scale = w.abs().mean().clamp(min=1e-5)
        trits = (w / scale).round().clamp(-1, 1) * scale
        factor = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        rounded = (x * factor).round().clamp(-128, 127) / factor
        return F.linear(x + (rounded - x).detach(), w + (trits - w).detach())


def rotated(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Layer(nn.Module):
    def __init__(self, hidden, heads, ffn):
        super().__init__()
        self.heads = heads
        self.input_norm, self.attn_norm = nn.RMSNorm(hidden, 1e-5), nn.RMSNorm(hidden, 1e-5)
        self.post_norm, self.ffn_norm = nn.RMSNorm(hidden, 1e-5), nn.RMSNorm(ffn, 1e-5)
        self.q, self.k, self.v, self.o = (
            BitLinear(hidden, hidden, bias=False) for _ in range(4)
        )
        self.gate = BitLinear(hidden, ffn, bias=False)
        self.up = BitLinear(hidden, ffn, bias=False)
        self.down = BitLinear(ffn, hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, context, hidden = x.shape
        h = self.input_norm(x)
        q, k, v = (
            linear(h).view(batch, context, self.heads, -1).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        attended = attended.transpose(1, 2).reshape(batch, context, hidden)
        x = x + self.o(self.attn_norm(attended))
        h = self.post_norm(x)
        product = F.relu(self.gate(h)).square() * self.up(h)
        return x + self.down(self.ffn_norm(product))


class Model(nn.Module):
    def __init__(self, of):
        super().__init__()
        self.embedding = nn.Embedding(of.vocabulary, of.hidden)
        self.layers = nn.ModuleList(
            Layer(of.hidden, of.heads, of.ffn) for _ in range(of.layers)
        )
        self.norm = nn.RMSNorm(of.hidden, 1e-5)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        dim = of.hidden // of.heads
        rates = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        angles = torch.outer(torch.arange(of.context), rates)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["eager", "compiled"])
    for name in ["hidden", "layers", "heads", "ffn", "vocabulary", "batch", "context"]:
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = Model(args)
    compute = torch.compile(model) if args.mode == "compiled" else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    shape = (args.batch, args.context + 1)
    rows = torch.arange(shape[0] * shape[1]).view(shape) * 7919 % args.vocabulary
    seconds = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        compute(rows[:, :-1], rows[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(statistics.median(seconds[1:]), peak)


main()
