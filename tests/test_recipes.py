from __future__ import annotations

import pytest

from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.evaluation.plan import resolve_attacks
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.models.backbones import BACKBONES
from robustmri.recipes import Recipe, change_settings, list_recipes, load_recipe, load_toml
from robustmri.training.settings import TrainSettings


@pytest.mark.parametrize("name", list_recipes())
def test_a_packaged_recipe_is_whole(name):
    recipe = load_recipe(name)
    assert len(recipe.about) > 20
    assert (recipe.train.attacked, recipe.harden.attacked) == (False, True)
    assert recipe.train.backbone in BACKBONES
    if name != "contrast":  # Which repairs nothing.
        assert recipe.harden.eps == recipe.evaluate.eps[0], "against the eps it is tested at"
    assert recipe.train.epochs > recipe.train.warmup_epochs
    assert recipe.harden.epochs > recipe.harden.eps_ramp_epochs
    attacks = set(resolve_attacks(recipe.evaluate))
    assert {"pgd", "cw", "standard"} & attacks - {recipe.harden.objective}, (
        "not by single steps alone"
    )
    # The table of the file says everything that the recipe differs in, and nothing it does not
    # know.
    assert set(load_toml(name)) <= set(Recipe.__struct_fields__)


def test_the_packaged_recipes():
    assert list_recipes() == [
        "ablation",
        "contrast",
        "demo",
        "folds-cpu",
        "folds-gpu",
        "poster-cpu",
        "poster-gpu",
        "poster-offline",
        "poster-small",
        "quick",
        "smoothing",
        "standard",
        "strong",
    ]


def test_variants_of_a_packaged_recipe_fit():
    recipe = load_recipe("ablation")
    changed = [
        change_settings(recipe.harden, variant.harden) for variant in recipe.variants.values()
    ]
    assert changed[0] == recipe.harden, "the first is the recipe's own"
    starts = {variant.start for variant in recipe.variants.values()}
    assert starts == {"standard", "scratch"}
    for one, other in zip(changed, recipe.variants.values(), strict=True):
        assert (one != recipe.harden) == bool(other.harden), "each differs in something"


def test_published_figures_are_no_recipe():
    with pytest.raises(SettingsError, match="recipe published"):
        load_recipe("published")


def test_overrides_replace_one_setting_each():
    plain = load_recipe("standard")
    changed = load_recipe(
        "standard",
        [
            "train.epochs=3",
            "harden.learning_rate=1e-3",
            "evaluate.eps=0.04, 8/255",
            "evaluate.attacks=pgd",
            "evaluate.options.pgd.restarts=7",
            "evaluate.options.pgd.loss=margin",
            "evaluate.limit=12",
            "evaluate.cases=a, b",
            "evaluate.patients=p",
            "prepare.size=96",
            " train.weights = imagenet ",
            "prepare.fold=2",
            "prepare.fractions=0.6, 0.2, 0.2",
            "seeds=0,1",
        ],
    )
    assert (changed.train.epochs, changed.train.weights) == (3, "imagenet")
    assert changed.harden.learning_rate == 1e-3
    assert (changed.prepare.size, changed.prepare.fold) == (96, 2)
    assert (changed.prepare.fractions, changed.seeds) == ((0.6, 0.2, 0.2), (0, 1))
    assert changed.evaluate.eps == ("0.04", "8/255")
    assert changed.evaluate.attacks == ("pgd",)
    assert (changed.evaluate.cases, changed.evaluate.patients) == (("a", "b"), ("p",))
    assert changed.evaluate.options == {
        "pgd": {**plain.evaluate.options["pgd"], "restarts": 7, "loss": "margin"}
    }
    assert changed.evaluate.limit == 12
    assert changed.train.batch_size == plain.train.batch_size
    assert load_recipe("standard") == plain, "the next one starts anew"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "train.epoch=3",
            r"recipe standard: train: there is no setting 'epoch'\. Did you mean 'epochs'\?",
        ),
        ("trian.epochs=3", r"there is no setting 'trian'\. Did you mean 'train'\?"),
        ("train.epochs=many", r"Expected `int`, got `str` - at `\$\.train\.epochs`"),
        ("train.epochs=2.5", r"Expected `int`, got `.*` - at `\$\.train\.epochs`"),
        ("train.epochs=0", r"epochs must be at least 1 and at most 1000000, got 0"),
        ("train.learning_rate=fast", r"Expected `float`"),
        ("train.norm=l1", r"train\.norm cannot be 'l1'\. Choices: l2, linf"),
        (
            "harden.augment=strong",
            r"harden\.augment cannot be 'strong'.* Choices: light, none, standard",
        ),
        ("prepare.split=patients", r"prepare\.split cannot be 'patients'\. Did you mean 'patient'"),
        ("train=fast", r"Expected `object`, got `str` - at `\$\.train`"),
        ("about.text=x", r"'about' has no settings of its own"),
        ("train.epochs", r"is not an override\. Write STAGE\.SETTING=VALUE"),
        ("=3", r"is not an override"),
        ("train.=3", r"is not an override"),
        ("evaluate.attacks=", r"at least one attack"),
    ],
)
def test_a_wrong_override_is_explained(override, message):
    with pytest.raises(SettingsError, match=message):
        load_recipe("standard", [override])


@pytest.mark.parametrize(
    "override", ["train.eps=large", "harden.eps=-1", "evaluate.eps=0.04,8/", "evaluate.curve=1/0"]
)
def test_a_wrong_eps_is_explained(override):
    with pytest.raises(ThreatModelError, match="eps"):
        load_recipe("standard", [override])


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'about = "Mine."\n[harden]\neps = "8/255"\n[evaluate.options.pgd]\nsteps = 50\n'
    )
    recipe = load_recipe(str(path), ["harden.epochs=2"])
    assert (recipe.harden.eps, recipe.harden.epochs) == ("8/255", 2)
    assert recipe.evaluate.options == {"pgd": {"steps": 50}}
    assert recipe.train == TrainSettings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"about = ", "not valid TOML"),
        (b"about = '\xff'", "not valid TOML"),
        (b"[train]\nepochs = 3\n", "missing required field `about`"),
        (b"about = 'x'\n[train]\nepochs = [3]\n", "Expected `int`, got `array`"),
        (b"about = 'x'\n[tran]\n", "Did you mean 'train'"),
    ],
)
def test_a_broken_recipe_is_named(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        load_recipe(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["demi", "/nowhere/mine.toml", ""])
def test_a_missing_recipe_is_named(name):
    with pytest.raises(
        SettingsError,
        match=r"There is no recipe .* Choices: ablation, contrast, demo, folds-cpu, folds-gpu",
    ):
        load_recipe(name)


def test_settings_change_as_strictly_as_a_recipe():
    settings = EvaluateSettings()
    changed = change_settings(settings, {"eps": ["0.1"], "limit": 3})
    assert (changed.eps, changed.limit, changed.attacks) == (("0.1",), 3, settings.attacks)
    assert change_settings(settings, {}) == settings
    for wrong, message in (
        ({"eps": None}, "Expected `array`, got `null`"),
        ({"limits": 3}, "Did you mean 'limit'"),
        ({"limit": "3"}, "Expected `int`"),
        ({"precision": "fp8"}, "EvaluateSettings: precision cannot be 'fp8'"),
    ):
        with pytest.raises(SettingsError, match=message):
            change_settings(settings, wrong)


def test_a_wrong_word_of_a_variant_is_one_sentence(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('about = "a"\n[variants.a]\nabout = "a"\nstart = "fresh"\n')
    with pytest.raises(SettingsError, match=r"Invalid enum value 'fresh' - at `\$\.variants"):
        load_recipe(str(path))
