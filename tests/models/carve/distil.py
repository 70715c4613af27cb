"""Train a carved model's small parts until it says what the dense model says.

    python distil.py SmolLM2-135M-Instruct.Q4_1.gguf RECIPE.safetensors ROWS.npy OUT.safetensors
    torchrun --nproc-per-node 2 distil.py ...      # two processes share the rows of each step

What learns: low-rank corrections of every weight matrix, norms, routers (network.py). The loss is
the Kullback-Leibler divergence from the dense model's next-token distribution, over the whole
vocabulary, at every position of ROWS (speak.py). The first VALIDATION_ROWS rows only decide which
state is kept. Neither heldout.jsonl nor evaluate.py's questions play any part.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed

import recipe
from gguf_file import GgufFile
from llama import MATRICES, Llama
from network import Network

SEED = 3
VALIDATION_ROWS = 16
LOSS_POSITIONS = 256
LEARNING_RATES = {"up": 1.5e-3, "down": 7e-4, "router": 3e-4, "norm": 3e-4}
WARM_UP_STEPS = 10
GRADIENT_NORM_MAX = 1.0


class Divergence(torch.autograd.Function):
    """Summed KL(dense || carved) in nats, from normalised hidden states [positions, hidden].

    The gradient by the carved model's logits is the difference of the two distributions, so it is
    found on the way forward and the logits, which are large, need not be kept.
    """

    @staticmethod
    def forward(context, wanted, said, net):
        total, gradient = 0.0, torch.empty_like(said)
        for at in range(0, len(said), LOSS_POSITIONS):
            part = slice(at, at + LOSS_POSITIONS)
            target = net.logits(wanted[part]).float().log_softmax(-1)
            found = net.logits(said[part]).float().log_softmax(-1)
            chance = target.exp()
            total = total + chance.flatten().dot((target.sub_(found)).flatten())
            gradient[part] = found.exp_().sub_(chance).to(said.dtype) @ net.embedding
        context.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(context, factor):
        (gradient,) = context.saved_tensors
        return None, gradient * factor, None


def divergence(net, ids, wanted):
    """Mean KL(dense || carved) in nats over every position of `ids` but each row's last."""
    said = net(ids)[:, :-1].flatten(0, 1)
    return Divergence.apply(wanted[:, :-1].flatten(0, 1), said, net) / len(said)


class Rows:
    """This process's share of the rows, in an order drawn anew for each pass.

    What the dense model makes of a row is computed once and kept, [tokens, hidden] each.
    """

    def __init__(self, net, ids, batch):
        self.net, self.ids, self.batch = net, ids, batch
        self.wanted, self.waiting = {}, []

    def teach(self, numbers):
        """(ids, the dense model's normalised hidden states) of the rows with these numbers."""
        missing = [number for number in numbers if number not in self.wanted]
        if missing:
            with torch.no_grad():
                found = self.net(self.ids[missing], teacher=True)
            self.wanted |= zip(missing, found)
        return self.ids[numbers], torch.stack([self.wanted[number] for number in numbers])

    def next(self):
        if len(self.waiting) < self.batch:
            self.waiting = torch.randperm(len(self.ids)).tolist()
        numbers, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        return self.teach(numbers)

    @torch.no_grad()
    def divergence(self):
        """Of all rows."""
        numbers = range(len(self.ids))
        parts = [list(numbers[at : at + self.batch]) for at in numbers[:: self.batch]]
        each = [float(divergence(self.net, *self.teach(part))) * len(part) for part in parts]
        return sum(each) / len(self.ids)


class Processes:
    """One process, or several that torchrun started, each with its share of the rows."""

    def __init__(self):
        self.count, self.index = 1, 0
        if "RANK" in os.environ:
            distributed.init_process_group("gloo")
            self.count, self.index = distributed.get_world_size(), distributed.get_rank()

    def share(self, rows):
        return rows[self.index :: self.count]

    def mean(self, tensor):
        """The mean of a tensor over all processes."""
        if self.count > 1:
            distributed.all_reduce(tensor)
        return tensor / self.count

    def average(self, parameters, *numbers):
        """Average the gradients, and return the averages of the numbers."""
        flat = [parameter.grad.flatten() for parameter in parameters] + [torch.tensor(numbers)]
        flat = self.mean(torch.cat([part.to(flat[0].device) for part in flat]))
        at = 0
        for parameter in parameters:
            parameter.grad.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
        return flat[at:].tolist()

    def say(self, text):
        if self.index == 0:
            print(text, flush=True)


def groups(net):
    """Parameters by the kind that decides how fast they learn."""
    kinds = {kind: [] for kind in LEARNING_RATES}
    for name, parameter in net.named_parameters():
        kind = next((part for part in ("up", "down", "router") if f".{part}" in name), "norm")
        kinds[kind].append(parameter)
    return [{"params": kinds[kind], "lr": rate, "peak": rate} for kind, rate in LEARNING_RATES.items()]


def pace(share, step):
    """Factor on the learning rates: a short warm-up, then half a cosine over the time given."""
    return min(1, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)


def layers_of(net, permutations):
    """The network's learnt parts as the recipe has them, in the checkpoint's order of neurons."""
    out = []
    for layer, permutation in zip(net.layers, permutations):
        back = np.argsort(permutation)
        array = lambda tensor: tensor.detach().cpu().numpy()
        tensors = {"permutation": permutation, "router": array(layer.router)}
        for name in layer.up:
            down, up = array(layer.down[name]), array(layer.up[name])
            tensors[f"{name}.down"] = down[:, back] if name == "ffn_down" else down
            tensors[f"{name}.up"] = up[back] if name in ("ffn_gate", "ffn_up") else up
        for name in ("attn_norm", "ffn_norm"):
            tensors[name] = array(getattr(layer, name))
        out.append(tensors)
    return out, {"output_norm": net.output_norm.detach().cpu().numpy()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--experts-per-token", type=int, default=6)
    parser.add_argument("--temperature", type=float, default=2.0**-4)
    parser.add_argument("--attention-rank", type=int, default=4)
    parser.add_argument("--ffn-rank", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=4, help="rows a step")
    parser.add_argument("--validate-every", type=int, default=50)
    parser.add_argument("--resume", type=Path, help="an OUT.pt of before")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    train(options)


def start(options):
    """(network, permutations, metadata) of an undistilled recipe."""
    gguf = GgufFile(options.gguf)
    layers, _, metadata = recipe.read(options.recipe)
    if metadata["source_sha256"] != gguf.sha256():
        raise SystemExit("the recipe was made for another checkpoint")
    metadata["experts_per_token"] = str(options.experts_per_token)
    metadata["router_temperature"] = repr(options.temperature)
    ranks = {
        name: options.ffn_rank if name.startswith("ffn") else options.attention_rank for name in MATRICES
    }
    shape = int(metadata["shared_neurons"]), options.experts_per_token, options.temperature
    pairs = [(layer["permutation"], layer["router"]) for layer in layers]
    net = Network(Llama(gguf), pairs, ranks, shape).to(options.device)
    return net, [permutation for permutation, _ in pairs], metadata


def train(options):
    net, permutations, metadata = start(options)
    processes = Processes()
    ids = torch.from_numpy(np.load(options.rows).astype(np.int64)).to(options.device)
    held = Rows(net, processes.share(ids[:VALIDATION_ROWS]), options.batch)
    rows = Rows(net, processes.share(ids[VALIDATION_ROWS:]), options.batch)
    before = 0
    if options.resume:
        state = torch.load(options.resume, map_location=options.device)
        net.load_state_dict(state["net"])
        before = state["tokens"]
    torch.manual_seed(SEED + processes.index)
    parameters = list(net.parameters())
    optimiser = torch.optim.AdamW(groups(net), betas=(0.9, 0.98), weight_decay=0)
    validate = lambda: float(processes.mean(torch.tensor(held.divergence())))
    best, begun, step, tokens, share = validate(), time.time(), 0, 0, 0.0
    processes.say(f"validation KL {best:.4f} at first, {len(ids)} rows")
    while share < 1:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * pace(share, step)
        batch, wanted = rows.next()
        loss = divergence(net, batch, wanted)
        optimiser.zero_grad()
        loss.backward()
        step, tokens = step + 1, tokens + batch.numel() * processes.count
        share = max((time.time() - begun) / 60 / options.minutes, step / options.steps)
        loss, share = processes.average(parameters, float(loss.detach()), share)
        norm = torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM_MAX)
        optimiser.step()
        processes.say(f"{step} {time.time() - begun:.0f} s KL {loss:.4f} gradient {float(norm):.2f}")
        if step % options.validate_every == 0 or share >= 1:
            found = validate()
            processes.say(f"validation KL {found:.4f} after {tokens} tokens, {time.time() - begun:.0f} s")
            if found < best and processes.index == 0:
                save(options.out, net, permutations, metadata, before + tokens)
            best = min(best, found)


def save(out, net, permutations, metadata, tokens):
    layers, outer = layers_of(net, permutations)
    training = {"distillation": f"{tokens} tokens, sampled from the source model, some more than once"}
    recipe.write(out, layers, outer, metadata | training)
    torch.save({"net": net.state_dict(), "tokens": tokens}, out.with_suffix(".pt"))


if __name__ == "__main__":
    main()
