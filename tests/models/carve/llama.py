"""Reference forward pass of a Llama-architecture model in numpy, f32 throughout.

The feed-forward block is either dense SwiGLU or the carved mixture of experts:

    y = shared(x) + k * sum over the k experts with the largest logits of w_e * expert_e(x)
    logits = temperature * router @ x,   w = softmax over the k chosen logits

This is what Hugging Face's GraniteMoeShared and the ONNX QMoE operator with
normalize_routing_weights=1 compute once the factor k is folded into the experts' down
projections. With k equal to the number of experts and a small temperature it is the dense block.
"""

from dataclasses import dataclass, field

import numpy as np

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
VECTORS = ("attn_norm", "ffn_norm")


@dataclass
class Routing:
    """How one carved layer routes: `router` [experts, hidden], already times the temperature.

    `fold`: the factor k is inside the experts' down projections, so weights sum to 1, not to k.
    """

    router: np.ndarray
    shared_neurons: int
    experts_per_token: int
    fold: bool = False

    def weights(self, x):
        """[tokens, experts]: softmax over the chosen experts (times k unless folded), else 0."""
        logits = x @ self.router.T
        k = self.experts_per_token
        chosen = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
        top = np.take_along_axis(logits, chosen, -1)
        share = np.exp(top - top[:, :1])
        share *= (1 if self.fold else k) / share.sum(-1, keepdims=True)
        weights = np.zeros_like(logits)
        np.put_along_axis(weights, chosen, share, -1)
        return weights


@dataclass
class Cache:
    """Keys and values of each layer, [batch, kv heads, positions, head size]."""

    keys: list = field(default_factory=list)
    values: list = field(default_factory=list)

    def append(self, layer, keys, values):
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = np.concatenate([self.keys[layer], keys], axis=2)
            self.values[layer] = np.concatenate([self.values[layer], values], axis=2)
        return self.keys[layer], self.values[layer]

    def length(self):
        return self.keys[0].shape[2] if self.keys else 0


def _half_rotation(weight, heads):
    """GGUF interleaves the two rotary halves of each head's rows; give them back in two halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rms_norm(x, gain, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * gain


def silu(x):
    return x / (1 + np.exp(-x))


class Llama:
    """Weights as [out, in] f32 arrays in `layers[i][name]`; replace them to test other roundings."""

    def __init__(self, gguf):
        get = lambda key: gguf.fields["llama." + key]
        self.heads = get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv")
        self.epsilon = np.float32(get("attention.layer_norm_rms_epsilon"))
        self.head_size = get("embedding_length") // self.heads
        self.rope_base = get("rope.freq_base")
        self.embedding = gguf.tensor("token_embd.weight")
        self.output = self.embedding
        self.output_norm = gguf.tensor("output_norm.weight")
        self.layers, self.routing, self.on_ffn_input = [], [], None
        for i in range(get("block_count")):
            layer = {name: gguf.tensor(f"blk.{i}.{name}.weight") for name in MATRICES + VECTORS}
            layer["attn_q"] = _half_rotation(layer["attn_q"], self.heads)
            layer["attn_k"] = _half_rotation(layer["attn_k"], self.kv_heads)
            self.layers.append(layer)
            self.routing.append(None)

    def carve(self, index, permutation, routing):
        """Reorder one layer's neurons (shared first, then expert by expert) and route them."""
        layer = self.layers[index]
        layer["ffn_gate"] = layer["ffn_gate"][permutation]
        layer["ffn_up"] = layer["ffn_up"][permutation]
        layer["ffn_down"] = np.ascontiguousarray(layer["ffn_down"][:, permutation])
        self.routing[index] = routing

    def rotate(self, x, start, back=False):
        """Rotary position embedding of [..., tokens, head size] from position `start` on."""
        half = self.head_size // 2
        inverse = self.rope_base ** (-np.arange(half) / half)
        angle = np.arange(start, start + x.shape[-2])[:, None] * (-inverse if back else inverse)
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        low, high = x[..., :half], x[..., half:]
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)

    def _attention(self, index, x, cache, pad):
        layer, (batch, tokens, _) = self.layers[index], x.shape
        split = lambda y, heads: y.reshape(batch, tokens, heads, self.head_size).swapaxes(1, 2)
        start = cache.keys[index].shape[2] if index < len(cache.keys) else 0
        query = self.rotate(split(x @ layer["attn_q"].T, self.heads), start)
        key = self.rotate(split(x @ layer["attn_k"].T, self.kv_heads), start)
        key, value = cache.append(index, key, split(x @ layer["attn_v"].T, self.kv_heads))
        group = self.heads // self.kv_heads
        query = query.reshape(batch, self.kv_heads, group, tokens, self.head_size)
        scores = query @ key[:, :, None].swapaxes(-1, -2) / np.float32(np.sqrt(self.head_size))
        positions = np.arange(key.shape[2])
        hidden = positions > np.arange(start, start + tokens)[:, None]
        if pad is not None:
            # A padded query sees itself only, so that its softmax stays finite.
            early = positions < pad[:, None, None]
            hidden = (hidden | early) & (positions != np.arange(start, start + tokens)[:, None])
            hidden = hidden[:, None, None]
        scores = np.where(hidden, np.float32(-1e30), scores)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ value[:, :, None]).reshape(batch, self.heads, tokens, self.head_size)
        return mixed.swapaxes(1, 2).reshape(batch, tokens, -1) @ layer["attn_output"].T

    def _ffn(self, index, x):
        layer, routing = self.layers[index], self.routing[index]
        rows = x.reshape(-1, x.shape[-1])
        if self.on_ffn_input:
            self.on_ffn_input(index, rows)
        hidden = silu(rows @ layer["ffn_gate"].T) * (rows @ layer["ffn_up"].T)
        if routing is not None:
            weights = routing.weights(rows)
            neurons = (hidden.shape[1] - routing.shared_neurons) // weights.shape[1]
            hidden[:, routing.shared_neurons :] *= np.repeat(weights, neurons, axis=1)
        return (hidden @ layer["ffn_down"].T).reshape(x.shape)

    def forward(self, ids, cache=None, pad=None):
        """Normalised hidden states [batch, tokens, hidden] of `ids` [batch, tokens].

        `cache` holds what came before and is extended. `pad` [batch] counts leading positions of
        each row that are padding.
        """
        cache = Cache() if cache is None else cache
        x = self.embedding[np.asarray(ids)]
        for index, layer in enumerate(self.layers):
            x = x + self._attention(index, rms_norm(x, layer["attn_norm"], self.epsilon), cache, pad)
            x = x + self._ffn(index, rms_norm(x, layer["ffn_norm"], self.epsilon))
        return rms_norm(x, self.output_norm, self.epsilon)

    def logits(self, hidden):
        """[..., vocabulary] of normalised hidden states."""
        return hidden @ self.output.T

    def greedy(self, ids, tokens_max, stop=None):
        """Up to `tokens_max` most likely tokens after `ids`, ending before `stop`."""
        cache, out, step = Cache(), [], list(ids)
        while len(out) < tokens_max:
            token = int(self.logits(self.forward([step], cache)[0, -1]).argmax())
            if token == stop:
                break
            out.append(token)
            step = [token]
        return out


def log_softmax(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))
