"""How much a change of each FFN's output would change what the model says.

For a small change d of a layer's output, the Kullback-Leibler divergence of the model's
predictions grows by d' F d / 2, where F is the mean of g g' over tokens and g is the gradient of
the negative log likelihood of tokens drawn from the model's own predictions (the Fisher
information; Amari, "Natural gradient works efficiently in learning", 1998). Backpropagation is
written out in numpy, one document at a time.
"""

import numpy as np

from llama import rms_norm, silu


def _rms_backward(grad, x, gain, epsilon):
    inverse = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon)
    grad = grad * gain
    return inverse * grad - x * inverse**3 * np.mean(grad * x, axis=-1, keepdims=True)


class _Trace:
    """One document through a dense model, with what the way back needs."""

    def __init__(self, model, ids):
        self.model, self.tape = model, []
        self.x = model.embedding[ids]
        for layer in model.layers:
            self.tape.append(self._layer(layer))
        self.logits = model.logits(rms_norm(self.x, model.output_norm, model.epsilon))

    def _heads(self, x, heads):
        return x.reshape(len(x), heads, self.model.head_size).swapaxes(0, 1)

    def _layer(self, layer):
        model, x = self.model, self.x
        normal = rms_norm(x, layer["attn_norm"], model.epsilon)
        query = model.rotate(self._heads(normal @ layer["attn_q"].T, model.heads), 0)
        key = model.rotate(self._heads(normal @ layer["attn_k"].T, model.kv_heads), 0)
        value = self._heads(normal @ layer["attn_v"].T, model.kv_heads)
        group = model.heads // model.kv_heads
        key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
        scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(model.head_size))
        scores += np.triu(np.full((len(x), len(x)), -1e30, np.float32), 1)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed = (share @ value).swapaxes(0, 1).reshape(x.shape)
        middle = x + mixed @ layer["attn_output"].T
        normal = rms_norm(middle, layer["ffn_norm"], model.epsilon)
        gate, up = normal @ layer["ffn_gate"].T, normal @ layer["ffn_up"].T
        self.x = middle + (silu(gate) * up) @ layer["ffn_down"].T
        return x, query, key, value, share, middle, gate, up

    def gradients(self, targets):
        """Gradient of the summed negative log likelihood by each layer's FFN output, last first."""
        model = self.model
        grad = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        grad /= grad.sum(-1, keepdims=True)
        grad[np.arange(len(grad)), targets] -= 1
        grad = _rms_backward(grad @ model.output, self.x, model.output_norm, model.epsilon)
        for layer, tape in zip(reversed(model.layers), reversed(self.tape)):
            yield grad
            grad = self._layer_backward(grad, layer, tape)

    def _layer_backward(self, grad, layer, tape):
        model = self.model
        x, query, key, value, share, middle, gate, up = tape
        hidden = grad @ layer["ffn_down"]
        sigmoid = 1 / (1 + np.exp(-gate))
        normal = (hidden * up * sigmoid * (1 + gate * (1 - sigmoid))) @ layer["ffn_gate"]
        normal += (hidden * gate * sigmoid) @ layer["ffn_up"]
        grad = grad + _rms_backward(normal, middle, layer["ffn_norm"], model.epsilon)
        mixed = self._heads(grad @ layer["attn_output"], model.heads)
        weights = share * (mixed @ value.swapaxes(1, 2))
        weights -= share * weights.sum(-1, keepdims=True)
        weights /= np.float32(np.sqrt(model.head_size))
        # A rotation's transpose is the rotation back.
        query_grad = model.rotate(weights @ key, 0, back=True)
        key_grad = model.rotate(weights.swapaxes(1, 2) @ query, 0, back=True)
        flat = lambda y: y.swapaxes(0, 1).reshape(len(x), -1)
        kv = lambda y: flat(y.reshape(model.kv_heads, -1, *y.shape[1:]).sum(1))
        normal = flat(query_grad) @ layer["attn_q"] + kv(key_grad) @ layer["attn_k"]
        normal += kv(share.swapaxes(1, 2) @ mixed) @ layer["attn_v"]
        return grad + _rms_backward(normal, x, layer["attn_norm"], model.epsilon)


def draw(logits, random):
    """One token per row from softmax(logits)."""
    return (logits + random.gumbel(size=logits.shape)).argmax(-1)


def output_metrics(model, documents, random):
    """F [hidden, hidden] of each layer. First tokens, which nobody says, are left out."""
    size, count = model.embedding.shape[1], 0
    metrics = [np.zeros((size, size)) for _ in model.layers]
    for number, ids in enumerate(documents):
        if number % 10 == 0:
            print(f"sensitivity {number}/{len(documents)}", flush=True)
        trace = _Trace(model, ids)
        count += len(ids) - 1
        for metric, grad in zip(reversed(metrics), trace.gradients(draw(trace.logits, random))):
            metric += grad[1:].T @ grad[1:]
    return [metric / count for metric in metrics]
