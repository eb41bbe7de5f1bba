"""A network as a list of known operators: what an import becomes when no library builds it by name.

The list is data (`graph.json`), the weights are safetensors, and the operators are those of
`graph_operators`: reading such a checkpoint runs no code of its author. It is differentiable, can
be hardened, and its arithmetic is torch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import CheckpointError, did_you_mean
from robustmri.models.graph_operators import OPERATORS

Attribute = int | float | str | list[int | float | str]


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operator; an empty name in `inputs` is an input that is left out."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Attribute] = {}


class Graph(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Operators in an order in which each finds its inputs; one image batch in, one output.

    Attributes:
        input: name of the images.
        output: name of what comes out.
        nodes: the operators, with the names and the meaning of ONNX.
        opset: version of ONNX's operator set that the nodes follow.
        batch: images that it takes at a time, no more and no fewer; 0: any number.
    """

    input: str
    output: str
    nodes: list[Node]
    opset: int
    batch: int = 0

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse operators that are not known, and names that nothing gives a value.

        Raises:
            CheckpointError: with the operator or the name.
        """
        known = {self.input, *tensors}
        for node in self.nodes:
            if node.operator not in OPERATORS:
                raise CheckpointError(
                    f"The operator {node.operator!r} is not known. "
                    f"{did_you_mean(node.operator, OPERATORS)}"
                )
            missing = [name for name in node.inputs if name and name not in known]
            if missing:
                raise CheckpointError(f"{node.operator} reads {missing[0]!r}, which nothing makes.")
            known.update(node.outputs)
        if self.output not in known:
            raise CheckpointError(f"Nothing makes the output {self.output!r}.")

    def without_last(self, operator: str) -> Graph | None:
        """The graph that ends before `operator`, where that is what makes the output."""
        for place in reversed(range(len(self.nodes))):
            node = self.nodes[place]
            if self.output in node.outputs:
                if node.operator != operator:
                    return None
                rest = self.nodes[:place] + self.nodes[place + 1 :]
                return msgspec.structs.replace(self, output=node.inputs[0], nodes=rest)
        return None

    def with_planes_first(self) -> Graph:
        """The same for images of shape (n, channels, height, width), of a graph that takes their
        planes last.
        """
        name = f"{self.input}, planes first"
        turn = Node(
            operator="Transpose",
            inputs=[name],
            outputs=[self.input],
            attributes={"perm": [0, 2, 3, 1]},
        )
        return msgspec.structs.replace(self, input=name, nodes=[turn, *self.nodes])


LARGEST_RESULT = 1 << 28
"""Numbers that an operator may make of one image: 1 GiB."""
GROWING = frozenset(
    (
        *("Add", "And", "Concat", "Conv", "ConvTranspose", "Div", "Einsum", "Equal", "Gemm"),
        *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Mul", "Or", "Pow"),
        *("Sub", "Where"),
    )
)
"""Operators whose result can be far larger than what they are given, and whose shape can be told
from shapes alone; those that make a shape of numbers look at it themselves.
"""


class GraphNetwork(nn.Module):
    """Runs a `Graph` with torch; its floating-point tensors of several numbers are parameters, but
    for the statistics of batch-norms, and for masks, which hold infinite numbers.

    Args:
        graph: operators; checked against `tensors`.
        tensors: weights and constants by name.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        graph.check(tensors)
        self.graph = graph
        # Names of a graph may hold dots and slashes, which modules and parameters may not.
        self._places = {name: f"t{place}" for place, name in enumerate(tensors)}
        # Statistics of batch-norms are measured, not learnt.
        measured = {
            name
            for node in graph.nodes
            if node.operator == "BatchNormalization"
            for name in node.inputs[3:5]
        }
        for name, value in tensors.items():
            several = value.is_floating_point() and value.numel() > 1 and name not in measured
            if several and bool(value.isfinite().all()):
                self.register_parameter(self._places[name], nn.Parameter(value.clone()))
            else:
                self.register_buffer(self._places[name], value.clone())
        last: dict[str, int] = {}
        for place, node in enumerate(graph.nodes):
            last.update(dict.fromkeys(node.inputs, place))
        self._done = [
            [name for name in dict.fromkeys(node.inputs) if name and last[name] == place]
            for place, node in enumerate(graph.nodes)
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Weights and constants by the graph's names."""
        return {name: getattr(self, place).detach() for name, place in self._places.items()}

    def forward(self, images: Images) -> Logits:
        """What the graph makes of `images`, shape (n, channels, height, width)."""
        batch = self.graph.batch
        if not batch:
            return self._run(images)
        room = -len(images) % batch
        full = torch.cat([images, images[-1:].expand(room, *images.shape[1:])])
        return torch.cat([self._run(part) for part in full.split(batch)])[: len(images)]

    @torch.no_grad()
    def refuse_growth(self, shape: tuple[int, int, int]) -> None:
        """Run once, on one black image, with a look at the size of each result before it is made: a
        few operators in a row can ask for any memory.

        Raises:
            CheckpointError: one has more than `LARGEST_RESULT` numbers, or the graph does not run.
        """
        one = torch.zeros(max(self.graph.batch, 1), *shape)
        try:
            self._run(one, careful=True)
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"The graph does not run on images of shape {shape} ({reason})."
            ) from error

    def _run(self, images: Images, *, careful: bool = False) -> Logits:
        values: dict[str, Any] = {self.graph.input: images}

        def value_of(name: str) -> Any:
            if not name:
                return None
            return values[name] if name in values else getattr(self, self._places[name])

        for node, done in zip(self.graph.nodes, self._done, strict=True):
            given = [value_of(name) for name in node.inputs]
            if careful and node.operator in GROWING:
                # Tensors without memory give the shape of the result alone.
                empty = [one.to("meta") if isinstance(one, Tensor) else one for one in given]
                result = OPERATORS[node.operator](empty, node.attributes, self.graph.opset)
                if result.numel() > LARGEST_RESULT:
                    raise CheckpointError(
                        f"{node.operator} of the graph asks for {result.numel()} numbers for one "
                        f"image, expected at most {LARGEST_RESULT}."
                    )
            made = OPERATORS[node.operator](given, node.attributes, self.graph.opset)
            made = made if isinstance(made, (tuple, list)) else (made,)
            values.update(zip(node.outputs, made, strict=False))
            for name in done:  # Frees what no later operator reads.
                if name != self.graph.output:
                    values.pop(name, None)
        logits: Logits = value_of(self.graph.output)
        return logits
