"""Named, complete settings: TOML files beside this module, or anywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.core.files import check_name
from robustmri.core.settings import SEEDS, about, check_bounds, choices_of
from robustmri.core.sizes import parse_size
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.threat.eps import Eps, eps_text, radii_text, split_radii
from robustmri.training.settings import TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent
RADII = ("eps", "curve")
"""Settings that may be written as numbers."""
Settings = TypeVar("Settings", bound=msgspec.Struct)


class PrepareSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a source becomes a cohort; see `robustmri.verbs.prepare.prepare`."""

    size: Annotated[
        int | tuple[int, int] | str,
        about("height and width of the stored slices in pixels: one number, or HEIGHTxWIDTH"),
    ] = 224
    channels: Annotated[
        int | None,
        about("of the stored slices: 1 (grey) or 3 (colour); as the first slices are if not given"),
    ] = None
    intensity: Annotated[
        Literal["auto", "minmax", "percentile", "full"],
        about("rule that maps values to [0, 1]; auto: minmax for grey, full for colour"),
    ] = "auto"
    pad: Annotated[
        bool, about("slices of another aspect ratio are padded with black; else stretched")
    ] = True
    columns: Annotated[
        str,
        about(
            "which column of a table is what, as image=COLUMN,label=COLUMN,patient=COLUMN, also "
            "mask, plane, fold; of DICOM also keywords or tags"
        ),
    ] = ""
    patient_pattern: Annotated[
        str,
        about(
            "regular expression that finds the patient in a path: its group `patient`, or its first"
        ),
    ] = ""
    slices: Annotated[
        str,
        about(
            "which slices of a volume: mask (those with lesion), middle (third), all, A:B or "
            "every:N"
        ),
    ] = ""
    window: Annotated[
        str, about("`file`: grey values of DICOM are clipped to the window that each file carries")
    ] = ""
    split: Annotated[
        Literal["patient", "slice", "folds", "none"],
        about(
            "whose slices stay together: of a patient, of nobody (slice, as the poster's), or of a "
            "fold; none: all are tested, by a classifier from elsewhere"
        ),
    ] = "patient"
    fold: Annotated[
        int | None, about("test fold, 1 to 5, with split folds", at_least=1, at_most=5)
    ] = None
    fractions: Annotated[
        tuple[float, float, float], about("shares of train, validation and test")
    ] = (0.7, 0.15, 0.15)
    seed: Annotated[int, about("of the split", at_least=0, at_most=SEEDS)] = 0

    def __post_init__(self) -> None:
        check_bounds(self)
        msgspec.structs.force_setattr(self, "size", parse_size(self.size))
        if self.channels not in (None, 1, 3):
            raise SettingsError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}.")


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to harden that `ablate` compares with the recipe's own.

    Attributes:
        about: what is different, in a few words.
        start: the standard run, or "scratch".
        harden: settings in place of the recipe's.
    """

    about: str
    start: Literal["standard", "scratch"] = "standard"
    harden: dict[str, Any] = {}


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of every stage.

    Attributes:
        about: what the recipe is for, and what it costs.
        source: where the slices come from, if the recipe brings its own ("phantom:...").
        variants: what `ablate` compares, by name; the first is what the others are compared with.
        seeds: of its trainings.
    """

    about: str
    source: str = ""
    prepare: PrepareSettings = PrepareSettings()
    train: TrainSettings = TrainSettings()
    harden: TrainSettings = TrainSettings(objective="adversarial")
    evaluate: EvaluateSettings = EvaluateSettings()
    variants: dict[str, Variant] = {}
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in self.variants:
            check_name(name, "a variant")
        if not self.seeds or not all(0 <= seed <= SEEDS for seed in self.seeds):
            raise SettingsError(f"seeds must be whole numbers of 0 to {SEEDS}, at least one.")


def require_recipe(recipe: object) -> None:
    """Refuse what is no recipe, such as its name.

    Raises:
        SettingsError: it is none.
    """
    if not isinstance(recipe, Recipe):
        raise SettingsError(
            f"expected a recipe, got {recipe!r:.80}. Read it: load_recipe('standard')."
        )


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem != "published")


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe by name or path, with single settings replaced.

    Args:
        name: one of `list_recipes()`, or a path to a .toml file.
        overrides: texts such as "train.epochs=10" or "evaluate.eps=0.04,8/255".

    Raises:
        SettingsError: no such recipe, a setting that does not exist, or a value of the wrong kind.
    """
    if not isinstance(name, str) or isinstance(overrides, str):
        raise SettingsError(
            f"expected the name of a recipe and a list of overrides, got {name!r:.80} and "
            f"{overrides!r:.80}."
        )
    settings = load_toml(name)
    for text in map(str, overrides):
        _override(settings, text)
    # Not strict: an override is a text, whatever it stands for.
    return _convert(settings, Recipe, f"recipe {name}", strict=False)


def change_settings(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Settings of one stage with some of them replaced, and checked as those of a recipe are.

    Raises:
        SettingsError: a setting that does not exist, or a value of the wrong kind.
    """
    kind = type(settings)
    if not isinstance(settings, msgspec.Struct):
        raise SettingsError(
            f"expected settings as of load_recipe(...), got {kind.__name__}. Single ones are given "
            "by name, such as epochs=10."
        )
    return _convert(
        {**msgspec.structs.asdict(settings), **changes}, kind, kind.__name__, strict=True
    )


def load_toml(name: str) -> dict[str, Any]:
    """The tables of a TOML file that comes with the package, by name, or of any other, by path."""
    path = find_recipe(name)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error


def find_recipe(name: str) -> Path:
    """The file of a recipe, by name or by path.

    Raises:
        SettingsError: no such recipe.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise SettingsError(f"There is no recipe {name!r}. {did_you_mean(name, list_recipes())}")
    return path


def _convert(
    settings: dict[str, Any], kind: type[Settings], where: str, *, strict: bool
) -> Settings:
    _refuse_unknown(settings, kind, where)
    settings = _with_radii_as_text(settings, kind)
    try:
        return msgspec.convert(settings, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {_explain(error, kind)}") from error


def _with_radii_as_text(settings: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """The settings with every eps as text, whether it came as a number, as an `Eps`, alone or in a
    list.
    """
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    changed = dict(settings)
    for name, value in settings.items():
        part = fields[name]
        if isinstance(part, type) and issubclass(part, msgspec.Struct) and isinstance(value, dict):
            changed[name] = _with_radii_as_text(value, part)
        elif name in RADII and kind is TrainSettings and isinstance(value, (float, int, Eps)):
            changed[name] = eps_text(value)
        elif name in RADII and kind is EvaluateSettings and _are_radii(value):
            changed[name] = radii_text(value)
    return changed


def _are_radii(value: Any) -> bool:
    """Whether it may be one eps or several; what is not is left to be refused by its kind."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(part, (str, float, int, Eps)) for part in parts)


def _explain(error: msgspec.ValidationError, kind: Any) -> str:
    """What msgspec says, and the choices where there are some."""
    found = re.fullmatch(r"Invalid enum value '(.*)' - at `\$\.(.*)`", str(error))
    if not found:
        return f"{error}."
    value, path = found.groups()
    *stages, name = path.split(".")
    for stage in stages:
        kind = get_type_hints(kind).get(stage)
        if kind is None:  # One of many, such as the variants.
            return f"{error}."
    return f"{path} cannot be {value!r}. {did_you_mean(value, choices_of(kind, name))}"


def _refuse_unknown(settings: dict[str, Any], kind: type[Any], where: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in settings.items():
        if name not in fields:
            raise SettingsError(
                f"{where}: there is no setting {name!r}. {did_you_mean(name, fields)}"
            )
        part = fields[name]
        if isinstance(part, type) and issubclass(part, msgspec.Struct) and isinstance(value, dict):
            _refuse_unknown(value, part, f"{where}: {name}")


def _override(settings: dict[str, Any], text: str) -> None:
    path, found, value = text.partition("=")
    names = path.strip().split(".")
    if not found or not all(names):
        raise SettingsError(
            f"{text!r} is not an override. Write STAGE.SETTING=VALUE, such as train.epochs=10."
        )
    place = settings
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise SettingsError(f"{text!r}: {name!r} has no settings of its own.")
    if "options" in names[:-1]:
        place[names[-1]] = _literal(value.strip())
    elif names[0] == "evaluate" and names[-1] in RADII:
        place[names[-1]] = split_radii(value)
    elif _is_list(names):
        place[names[-1]] = [part.strip() for part in value.split(",") if part.strip()]
    else:
        place[names[-1]] = value.strip()


def _is_list(names: Sequence[str]) -> bool:
    """Whether a setting has several values, which a text divides by commas."""
    usual: Any = Recipe(about="")
    for name in names:
        usual = getattr(usual, name, None)
    return isinstance(usual, tuple)


def _literal(text: str) -> Any:
    """A value as TOML writes it; what is none is a text without its quotation marks. An attack's
    options have no kinds.

    >>> _literal("3"), _literal("0.5"), _literal("true"), _literal("margin")
    (3, 0.5, True, 'margin')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text
