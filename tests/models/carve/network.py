"""The carved model in torch, for training: frozen weights, and the few parts that learn.

The frozen weights are the checkpoint's, in `dtype`. What learns is f32 and small: the norms, the
routers and, beside each weight matrix W [out, in], a correction `up @ down` of low rank, which
the importer adds to W. Without routing and corrections the same module is the dense teacher.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from llama import MATRICES, VECTORS

# Where a layer's matrices read from and which are therefore read together.
GROUPS = {
    "attn_in": ("attn_q", "attn_k", "attn_v"),
    "attn_out": ("attn_output",),
    "ffn_in": ("ffn_gate", "ffn_up"),
    "ffn_out": ("ffn_down",),
}


class Layer(nn.Module):
    """One decoder layer; neurons in the order of `permutation`."""

    def __init__(self, weights, permutation, router, ranks, dtype):
        super().__init__()
        order = torch.from_numpy(permutation.astype("i8"))
        self.register_buffer("order", order)
        self.sizes = {name: weights[name].shape[0] for name in MATRICES}
        tensors = {name: torch.from_numpy(weights[name]) for name in MATRICES}
        for name in ("ffn_gate", "ffn_up"):
            tensors[name] = tensors[name][order]
        tensors["ffn_down"] = tensors["ffn_down"][:, order]
        for group, names in GROUPS.items():
            self.register_buffer(group, torch.cat([tensors[name] for name in names]).to(dtype))
        for name in VECTORS:
            gain = torch.from_numpy(weights[name].copy())
            self.register_buffer("teacher_" + name, gain.clone())
            setattr(self, name, nn.Parameter(gain))
        self.router = nn.Parameter(torch.from_numpy(router.astype("f4")))
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name in MATRICES:
            rows, columns = weights[name].shape
            if ranks[name]:
                down = torch.randn(ranks[name], columns) / math.sqrt(columns)
                self.down[name] = nn.Parameter(down)
                self.up[name] = nn.Parameter(torch.zeros(rows, ranks[name]))

    def product(self, x, group, teacher):
        """x @ W' of a group's matrices side by side, corrections added unless `teacher`."""
        names = GROUPS[group]
        y = functional.linear(x, getattr(self, group))
        if teacher or not all(name in self.up for name in names):
            return y
        narrow = lambda name: functional.linear(x, self.down[name].to(x.dtype))
        parts = [functional.linear(narrow(name), self.up[name].to(x.dtype)) for name in names]
        return y + (parts[0] if len(parts) == 1 else torch.cat(parts, -1))


class Network(nn.Module):
    """All layers. `shape`: shared neurons, experts per token, router temperature."""

    def __init__(self, llama, layers, ranks, shape, dtype=torch.bfloat16):
        super().__init__()
        self.heads, self.kv_heads, self.head_size = llama.heads, llama.kv_heads, llama.head_size
        self.epsilon, self.dtype = float(llama.epsilon), dtype
        self.shared_neurons, self.experts_per_token, self.temperature = shape
        self.register_buffer("embedding", torch.from_numpy(llama.embedding).to(dtype))
        gain = torch.from_numpy(llama.output_norm.copy())
        self.register_buffer("teacher_output_norm", gain.clone())
        self.output_norm = nn.Parameter(gain)
        inverse = llama.rope_base ** (-torch.arange(self.head_size // 2) / (self.head_size // 2))
        self.register_buffer("inverse", inverse)
        self.layers = nn.ModuleList(
            Layer(weights, permutation, router, ranks, dtype)
            for weights, (permutation, router) in zip(llama.layers, layers)
        )

    def _norm(self, x, gain):
        return functional.rms_norm(x, x.shape[-1:], gain, self.epsilon).to(self.dtype)

    def _rotate(self, x, start):
        angle = torch.arange(start, start + x.shape[-2], device=x.device)[:, None] * self.inverse
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        low, high = x.chunk(2, -1)
        return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

    def _attention(self, layer, x, teacher, cache):
        batch, tokens, _ = x.shape
        split = lambda y, heads: y.view(batch, tokens, heads, self.head_size).transpose(1, 2)
        sizes = [layer.sizes[name] for name in GROUPS["attn_in"]]
        query, key, value = layer.product(x, "attn_in", teacher).split(sizes, -1)
        start = 0 if cache is None else cache.length
        query = self._rotate(split(query, self.heads), start)
        key, value = self._rotate(split(key, self.kv_heads), start), split(value, self.kv_heads)
        if cache is not None:
            key, value = cache.append(key, value)
        mixed = self._mix(query, key, value)
        return layer.product(mixed.transpose(1, 2).reshape(batch, tokens, -1), "attn_out", teacher)

    def _mix(self, query, key, value):
        """[batch, heads, tokens, head size]; each position sees itself and those before it."""
        group = self.heads // self.kv_heads
        if query.shape[2] == 1:
            # One new token sees everything: the heads of a group can stand in for its positions.
            grouped = query.reshape(len(query), self.kv_heads, group, self.head_size)
            return functional.scaled_dot_product_attention(grouped, key, value).view(query.shape)
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def _weights(self, layer, x):
        """[..., experts]: what each expert's output counts; 0 where it is not chosen."""
        logits = functional.linear(x.float(), layer.router) * self.temperature
        top, chosen = logits.topk(self.experts_per_token, -1)
        share = top.softmax(-1) * self.experts_per_token
        return torch.zeros_like(logits).scatter(-1, chosen, share)

    def _ffn(self, layer, x, teacher):
        gate, up = layer.product(x, "ffn_in", teacher).chunk(2, -1)
        hidden = functional.silu(gate) * up
        if not teacher:
            weights = self._weights(layer, x).to(hidden.dtype)
            neurons = (hidden.shape[-1] - self.shared_neurons) // weights.shape[-1]
            ones = hidden.new_ones(*hidden.shape[:-1], self.shared_neurons)
            hidden = hidden * torch.cat([ones, weights.repeat_interleave(neurons, -1)], -1)
        return layer.product(hidden, "ffn_out", teacher)

    def forward(self, ids, teacher=False, caches=None):
        """Normalised hidden states [batch, tokens, hidden]. `caches`: one per layer, or None."""
        gain = lambda owner, name: getattr(owner, "teacher_" + name if teacher else name)
        x = self.embedding[ids].float()
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            x = x + self._attention(layer, self._norm(x, gain(layer, "attn_norm")), teacher, cache)
            x = x + self._ffn(layer, self._norm(x, gain(layer, "ffn_norm")), teacher)
        return self._norm(x, gain(self, "output_norm"))

    def logits(self, hidden):
        """[..., vocabulary]"""
        return functional.linear(hidden, self.embedding)


class Cache:
    """Keys and values of one layer, room for `tokens_max`."""

    def __init__(self, tokens_max):
        self.tokens_max, self.length, self.keys, self.values = tokens_max, 0, None, None

    def append(self, keys, values):
        if self.keys is None:
            batch, heads, _, size = keys.shape
            self.keys = keys.new_empty(batch, heads, self.tokens_max, size)
            self.values = torch.empty_like(self.keys)
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]
