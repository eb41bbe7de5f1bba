"""A network as a list of known operators: torch's own answer, and nothing that is not known."""

from __future__ import annotations

import itertools

import msgspec
import pytest
import torch
from torch import nn

from robustmri.core.errors import CheckpointError
from robustmri.models.graph import Graph, GraphNetwork, Node
from robustmri.models.graph_operators import OPERATORS


def node(operator: str, inputs: str, output: str, **attributes) -> Node:
    names = inputs.split(",") if inputs else []
    return Node(operator=operator, inputs=names, outputs=[output], attributes=attributes)


@pytest.fixture
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 4, 3),
            nn.Softmax(1),
        ).eval()
        nn.init.uniform_(made[1].running_mean, -0.5, 0.5)
    return made


@pytest.fixture
def graph() -> Graph:
    nodes = [
        node("Conv", "x,0.weight,0.bias", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "a,1.weight,1.bias,1.running_mean,1.running_var", "b"),
        node("Clip", "b,low,high", "c"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "d", "e"),
        node("Gemm", "e,5.weight,5.bias", "f", transB=1),
        node("Softmax", "f", "y", axis=-1),
    ]
    return Graph(input="x", output="y", nodes=nodes, opset=17)


def tensors_of(network: nn.Module) -> dict[str, torch.Tensor]:
    state = {name: value for name, value in network.state_dict().items() if "tracked" not in name}
    return state | {"low": torch.tensor(0.0), "high": torch.tensor(6.0)}


def test_answers_and_gradients_are_those_of_the_network(network, graph):
    made = GraphNetwork(graph, tensors_of(network)).eval()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    expected, found = network(images), made(images)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(one[:, 0].sum(), images)[0] for one in (expected, found)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def test_weights_learn_and_statistics_do_not(network, graph):
    made = GraphNetwork(graph, tensors_of(network))
    assert len(list(made.parameters())) == 6
    assert made.tensors().keys() == tensors_of(network).keys()


def test_a_softmax_at_the_end_comes_off(network, graph):
    bare = graph.without_last("Softmax")
    assert bare is not None
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(GraphNetwork(bare, tensors_of(network))(images), network[:6](images))
    assert graph.without_last("Relu") is None
    assert msgspec.structs.replace(graph, output="x").without_last("Softmax") is None


def test_an_input_that_is_left_out_and_what_is_read_twice(network):
    """`c` is needed after its first reader; of what `Split` makes, one part is."""
    nodes = [
        node("Clip", "x,,high", "c"),
        node("Split", "c", "low", axis=1),
        node("Sub", "c,low", "y"),
    ]
    made = GraphNetwork(
        Graph(input="x", output="y", nodes=nodes, opset=17), {"high": torch.tensor(0.5)}
    )
    x = torch.tensor([[0.2, 0.9], [-3.0, 0.4]])
    torch.testing.assert_close(made(x), torch.tensor([[0.0, 0.3], [0.0, 3.4]]))


def test_what_is_made_early_may_be_the_output():
    nodes = [node("Relu", "x", "y"), node("Neg", "y", "z")]
    made = GraphNetwork(Graph(input="x", output="y", nodes=nodes, opset=17), {})
    assert made(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


def test_what_is_not_known_is_refused(network, graph):
    tensors = tensors_of(network)
    for wrong, said in (
        ([*graph.nodes, node("Loop", "y", "z")], "operator 'Loop' is not known"),
        ([node("Relu", "nowhere", "y")], "reads 'nowhere', which nothing makes"),
        ([node("Relu", "x", "z")], "Nothing makes the output 'y'"),
    ):
        with pytest.raises(CheckpointError, match=said):
            Graph(input="x", output="y", nodes=wrong, opset=17).check(tensors)
    large = [node("ConstantOfShape", "shape", "y")]
    made = Graph(input="x", output="y", nodes=large, opset=17)
    with pytest.raises(CheckpointError, match="more than"):
        GraphNetwork(made, {"shape": torch.tensor([1 << 20, 1 << 20])})(torch.rand(1, 1, 2, 2))


def test_no_operator_touches_files():
    assert not {"Loop", "If", "Scan", "SequenceAt", "StringConcat"} & set(OPERATORS)


def test_a_view_of_lower_precision_runs_through_casts(network, graph):
    cast = node("Cast", "x", "x32", to=1)
    mask = [node("Greater", "x32,low", "bool"), node("Cast", "bool", "mask", to=1)]
    first = msgspec.structs.replace(graph.nodes[0], inputs=["masked", *graph.nodes[0].inputs[1:]])
    nodes = [cast, *mask, node("Mul", "mask,x32", "masked"), first, *graph.nodes[1:]]
    made = GraphNetwork(msgspec.structs.replace(graph, nodes=nodes), tensors_of(network)).eval()
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(made(images), network(images))
    low = made.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), network(images), rtol=0.1, atol=0.05)


def test_shapes_that_are_read_from_the_images(network, graph):
    """As exporters write `x.reshape(x.shape[0], -1)`."""
    nodes = [
        *graph.nodes[:4],
        node("Shape", "d", "sizes"),
        node("Gather", "sizes,first", "count", axis=0),
        node("Unsqueeze", "count,axes", "count1"),
        node("Concat", "count1,rest", "flat", axis=0),
        node("Reshape", "d,flat", "e"),
        *graph.nodes[5:],
    ]
    numbers = {"first": torch.tensor(0), "axes": torch.tensor([0]), "rest": torch.tensor([-1])}
    made = GraphNetwork(msgspec.structs.replace(graph, nodes=nodes), tensors_of(network) | numbers)
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(made(images), network(images))


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_what_takes_so_many_images_at_a_time_is_given_so_many(network, graph, batch):
    fixed = msgspec.structs.replace(graph, batch=batch)
    fixed.nodes[4] = node("Reshape", "d,flat", "e")
    made = GraphNetwork(fixed, tensors_of(network) | {"flat": torch.tensor([batch, -1])})
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(made(images), network(images))


def test_constants_that_are_infinite_are_not_learnt(network, graph):
    """As masks of attention are."""
    mask = torch.tensor([[0.0, -torch.inf, 0.0]])
    last = graph.nodes[-1]
    nodes = [*graph.nodes[:-1], node("Add", "f,mask", "g"), node("Softmax", "g", "y", axis=-1)]
    assert last.operator == "Softmax"
    made = GraphNetwork(
        msgspec.structs.replace(graph, nodes=nodes), tensors_of(network) | {"mask": mask}
    )
    assert len(list(made.parameters())) == 6
    assert not made(torch.rand(2, 1, 8, 8))[:, 1].any()


def doubling(times):
    names = ["x", *(f"d{k}" for k in range(times))]
    steps = itertools.pairwise(names)
    return [node("Concat", f"{one},{one}", other, axis=1) for one, other in steps], names[-1]


def crossed():
    """A column times a row: each is small, their product is not."""
    nodes, last = doubling(9)
    shapes = [
        node("Flatten", last, "flat", axis=1),
        node("Transpose", "flat", "column", perm=[1, 0]),
        node("MatMul", "column,flat", "square"),
    ]
    return [*nodes, *shapes], "square"


@pytest.mark.parametrize("made", [doubling(40), crossed()], ids=["doubled", "crossed"])
def test_a_graph_that_grows_without_bound_is_refused(made, tmp_path):
    from robustmri.models.checkpoint import load_checkpoint, save_checkpoint
    from robustmri.models.classifier import Classifier, ClassifierSpec

    nodes, output = made
    network = GraphNetwork(Graph(input="x", output=output, nodes=nodes, opset=17), {})
    spec = ClassifierSpec(backbone="theirs", classes=("a", "b"), size=64, format="graph")
    save_checkpoint(Classifier(network, spec), tmp_path / "theirs", imported="x")
    with pytest.raises(CheckpointError, match="numbers for one image"):
        load_checkpoint(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["hf:../folder", "hf:/etc", "timm:hf-hub:a/b", "timm:local-dir:x"])
def test_a_checkpoint_leads_to_no_other_folder_or_server(name, tmp_path):
    import json

    from robustmri.models.backbones import build_classifier
    from robustmri.models.checkpoint import load_checkpoint, save_checkpoint

    save_checkpoint(build_classifier("resnet18-half", ("a", "b"), 32), tmp_path / "c")
    head = json.loads((tmp_path / "c" / "classifier.json").read_text())
    head["spec"]["backbone"] = name
    (tmp_path / "c" / "classifier.json").write_text(json.dumps(head))
    with pytest.raises(CheckpointError, match="must not lead to other folders"):
        load_checkpoint(tmp_path / "c")
