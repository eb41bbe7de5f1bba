"""A classifier that only answers: a function, a service, or an ONNX file that no graph can be made
of.

It gives no gradients. Attacks that ask for logits or decisions alone can be run on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.models.classifier import Classifier, ClassifierSpec

Answer = Callable[[npt.NDArray[np.float32]], Any]


class BlackBox(Classifier):
    """A classifier whose network is any function.

        def ask(images):  # float32, (n, channels, size, size), normalised as the spec says
            return service.predict(images)  # (n, classes): what spec.ends_in names

        spec = ClassifierSpec(backbone="service", classes=("ill", "well"), size=128, mean=0, std=1)
        robustmri.evaluate(BlackBox(ask, spec), "cohort", "result")

    Args:
        answer: takes a NumPy array, gives an array or a tensor; it must answer the same each time,
            and each image as if it were alone.
        spec: as for any other classifier.
    """

    def __init__(self, answer: Answer, spec: ClassifierSpec) -> None:
        spec = msgspec.structs.replace(spec, gradients=False, format="black-box")
        super().__init__(Asked(answer), spec)


class Asked(nn.Module):
    """A network of one function, without weights and without gradients."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        if not callable(answer):
            raise SettingsError(f"expected a function of images to answers, got {answer!r:.80}.")
        self.answer = answer

    def __deepcopy__(self, memo: dict[int, Any]) -> Asked:
        # Nothing in it changes, and what it asks can often not be copied.
        return self

    def forward(self, images: Images) -> Logits:
        """The answers, on the images' device."""
        asked = images.detach().to("cpu", torch.float32).contiguous().numpy()
        answers = self.answer(asked)
        try:
            logits = torch.as_tensor(answers).to(images.device, torch.float32)
        except (RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The black box answered with {type(answers).__name__}, expected numbers of shape "
                f"({len(images)}, classes)."
            ) from error
        if len(logits) != len(images):
            raise CheckpointError(
                f"The black box gave {len(logits)} answers to {len(images)} images. Expected one "
                "row for each."
            )
        return logits


def black_box_of(content: bytes, name: str) -> Asked:
    """What runs an ONNX model, all its weights within, by onnxruntime.

    Images whose batch the model fixes are given to it in batches of that many.

    Args:
        content: of the .onnx file.
        name: of the file, for messages.

    Raises:
        CheckpointError: onnxruntime cannot run it either.
        SettingsError: onnxruntime is missing.
    """
    session = open_session(content, name)
    (given,) = session.get_inputs()[:1]
    output = session.get_outputs()[0].name
    shape = list(given.shape)
    batch = shape[0] if isinstance(shape[0], int) else 0
    planes_last = shape[-1] in (1, 3) and shape[1] not in (1, 3)

    def answer(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        images = images.transpose(0, 2, 3, 1) if planes_last else images
        parts = []
        for start in range(0, len(images), batch or len(images)):
            part = images[start : start + (batch or len(images))]
            room = max((batch or len(part)) - len(part), 0)
            full = np.concatenate([part, np.repeat(part[-1:], room, axis=0)])
            (made,) = session.run([output], {given.name: np.ascontiguousarray(full)})
            parts.append(made[: len(part)])
        return np.concatenate(parts)

    return Asked(answer)


def open_session(content: bytes, name: str) -> Any:
    """onnxruntime's session of a model, on the CPU.

    Raises:
        CheckpointError: it cannot run it.
        SettingsError: it is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(
            f"{name} can only be run as a black box, which needs the package onnxruntime. Install "
            "it: pip install 'robustmri[import]'."
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # What it has to say comes as an exception too.
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its errors have no common kind but this.
        raise CheckpointError(
            f"onnxruntime cannot run {name} ({' '.join(str(error).split())[:200]})."
        ) from error


def read_black_box(path: Path) -> Asked:
    """The black box of a checkpoint's ONNX file.

    Raises:
        CheckpointError: it is none, or wants weights from another file, which onnxruntime would
            look for where the program was started; otherwise as `black_box_of`.
        SettingsError: the package onnx, or onnxruntime, is missing.
    """
    from robustmri.models.importers.onnx_file import external_files, parse

    content = path.read_bytes()
    if names := external_files(parse(content, path)):
        raise CheckpointError(
            f"{path} wants weights from {sorted(names)[0]!r}. Expected all of them within: import "
            "the model again."
        )
    return black_box_of(content, path.name)
