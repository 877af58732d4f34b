"""The Keras twin on TensorFlow against the PyTorch class, at the published size on a CPU: numbers and time.

    .venv-tensorflow/bin/python -m benchmarks.tensorflow_twin

First all scores and the gradients of all weights in pre-training; the run fails where the two differ by more than
1e-4. Then VQA inference, one image a question, the ways in turn, round by round: float32, processor
time. PyTorch's class computes nothing of padding, the twin all of it, in a graph without and with XLA.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # read when Keras is imported

import numpy as np
import tensorflow as tf
import torch

from benchmarks.timing import flops, parse, print_table, seconds, table_row
from lxmert import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering
from lxmert.tensorflow import TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert.weights import is_transposed

TOKENS, REGIONS, ANSWERS = 20, 36, 3129  # the original's fixed length; VQA v2's answers
CLOSE = 1e-4


def inputs(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Questions of 6 to 14 tokens, padded to 20, about one image each."""
    random = np.random.default_rng(seed)
    mask = np.arange(TOKENS) < random.integers(6, 15, (rows, 1))
    return {
        "input_ids": random.integers(1000, 30522, (rows, TOKENS)) * mask,
        "visual_feats": (random.random((rows, REGIONS, 2048), np.float32) * 3 - 1).clip(0),
        "visual_pos": np.sort(random.random((rows, REGIONS, 4), np.float32)),
        "attention_mask": mask.astype(np.int64),
    }


def labels(given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of every pre-training objective, under the PyTorch class' names."""
    random, rows = np.random.default_rng(1), len(given["input_ids"])
    hidden = (random.random((rows, TOKENS)) < 0.3) & (given["attention_mask"] != 0)
    weights = random.random((rows, REGIONS), np.float32)
    return {
        "labels": np.where(hidden, given["input_ids"], -100),
        "obj_labels": {
            "obj": (random.integers(0, 1600, (rows, REGIONS)), weights),
            "attr": (random.integers(0, 400, (rows, REGIONS)), weights),
            "feat": (random.random((rows, REGIONS, 2048), np.float32), weights),
        },
        "matched_label": np.arange(rows) % 2,
        "ans": random.integers(0, 9500, rows),
    }


def tensors(tree: Any) -> Any:
    """The same with PyTorch's tensors."""
    if isinstance(tree, dict):
        return {name: tensors(each) for name, each in tree.items()}
    return tuple(map(tensors, tree)) if isinstance(tree, tuple) else torch.from_numpy(tree)


def check_numbers() -> None:
    """Compare all scores and all gradients; fails where they differ."""
    torch.manual_seed(0)
    ours = LxmertForPreTraining(LxmertConfig()).eval()
    twin = TFLxmertForPreTraining(ours.config)
    twin.load_reference_state(ours.reference_state())
    given = inputs(2, 0)
    wanted = labels(given)
    expected = ours(**tensors(given | wanted))
    expected.loss.backward()
    wanted["masked_lm_labels"] = wanted.pop("labels")
    with tf.GradientTape() as tape:
        found = twin(given | wanted)
    worst = {}
    for name in ("loss", "prediction_logits", "cross_relationship_score", "question_answering_score"):
        worst[name] = np.abs(found[name].numpy() - expected[name].detach().numpy()).max()
    variables = twin.named_weights()
    gradients = tape.gradient(found.loss, [variable.value for variable in variables.values()])
    known = dict(ours.named_parameters())
    for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
        each = tf.convert_to_tensor(gradient).numpy()
        each = each.T if is_transposed(variable.path) else each
        worst[f"gradient of {name}"] = np.abs(each - known[name].grad.numpy()).max()
    largest = max(worst, key=lambda name: worst[name])
    print(f"{len(worst) - 4} gradients, loss, 3 scores: they differ by at most {worst[largest]:.1e} ({largest})")
    if worst[largest] > CLOSE:
        raise SystemExit(f"expected at most {CLOSE}")


def main() -> None:
    """Check the numbers, then time."""
    args = parse(__doc__ or "", rows=8, rounds=5)
    torch.set_num_threads(args.threads)
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    check_numbers()
    ours = LxmertForQuestionAnswering(LxmertConfig(num_qa_labels=ANSWERS)).eval()
    twin = TFLxmertForQuestionAnswering(ours.config)
    twin.load_reference_state(ours.reference_state())
    given = inputs(args.rows, 2)
    call = tensors(given)
    graph, compiled = tf.function(twin), tf.function(twin, jit_compile=True)

    def pytorchs() -> torch.Tensor:
        with torch.inference_mode():
            return ours(**call).question_answering_score

    ways = {
        "PyTorch": pytorchs,
        "TensorFlow, graph": lambda: torch.from_numpy(graph(given).question_answering_score.numpy()),
        "TensorFlow, XLA": lambda: torch.from_numpy(compiled(given).question_answering_score.numpy()),
    }
    operations, expected = flops(pytorchs)
    for name, way in ways.items():
        difference = (way() - expected).abs().max().item()  # and warms up
        if difference > CLOSE:
            raise SystemExit(f"{name}: scores differ by {difference:.1e}")
    device = torch.device("cpu")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            times[name].append(seconds(way, device)[0])
    peer = times["PyTorch"]
    rows = [table_row(name, args.rows, times[name], peer, operations, None, 0) for name in ways]
    print_table(f"VQA inference, {args.rows} questions a batch", rows, device, args.threads)
    for name in ways:
        print(f"{name}: {statistics.median(times[name]) / args.rows * 1000:.0f} ms a question")


if __name__ == "__main__":
    main()
