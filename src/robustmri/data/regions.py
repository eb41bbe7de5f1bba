"""Parts of a slice to which an attack can be confined: the head and what is around it, the lesion,
its border, all but the lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from robustmri.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from robustmri.data.cohort import Cohort

    Masks = npt.NDArray[np.bool_]

Region = Literal["image", "brain", "lesion", "outside-lesion", "border", "background"]
AROUND_LESIONS: tuple[Region, ...] = ("lesion", "outside-lesion", "border")
"""Which need the lesion's outline."""
REGIONS: dict[Region, str] = {
    "image": "Every pixel may change",
    "brain": (
        "Only pixels of the head may change (above Otsu's threshold, the largest connected part, "
        "holes filled)"
    ),
    "lesion": "Only pixels inside the outlined lesion may change",
    "outside-lesion": "Only pixels outside the outlined lesion may change",
    "border": (
        "Only pixels of a ring around the outline of the lesion may change (a forty-eighth of the "
        "side to either side, at least a pixel)"
    ),
    "background": "Only pixels outside the head may change",
}
"""Name to what the attacker may do, as the report says it."""


def find_region(cohort: Cohort, indexes: Sequence[int], region: Region) -> Masks | None:
    """Where pixels of these slices may change, shape (k, h, w); None for the whole image."""
    import numpy as np

    if region == "image":
        return None
    check_region(cohort, indexes, region)
    if region in ("brain", "background"):
        heads = np.stack([find_head(cohort.images[index]) for index in indexes])
        return heads if region == "brain" else ~heads
    lesions = cohort.masks(indexes)
    if lesions is None or region == "lesion":
        return lesions
    return ~lesions if region == "outside-lesion" else np.stack([*map(find_border, lesions)])


def check_region(cohort: Cohort, indexes: Sequence[int], region: Region) -> None:
    """Refuse a region that some of these slices do not have.

    Raises:
        DataError: it is about lesions, and one is not outlined; or about the head, and the cohort
            is in colour.
    """
    if region in ("brain", "background") and cohort.channels == 3:
        raise DataError(
            f"the region {region!r} is about a bright head on black, which slices in colour do not "
            "show. Use --region image, lesion or outside-lesion."
        )
    if region not in AROUND_LESIONS:
        return
    bare = [
        cohort.cases[index].case_id for index in indexes if cohort.cases[index].lesion_box is None
    ]
    if bare:
        raise DataError(
            f"the region {region!r} needs the outline of every lesion; {len(bare)} of "
            f"{len(indexes)} slices have none, the first is {bare[0]!r}. Use --region brain, or a "
            "source that brings outlines."
        )


def find_border(lesion: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Ring around the outline of a lesion, shape (size, size): what is within reach of it on either
    side.

    >>> import numpy as np
    >>> print(find_border(np.pad(np.ones((3, 3), bool), 1)).astype(int))
    [[0 1 1 1 0]
     [1 1 1 1 1]
     [1 1 0 1 1]
     [1 1 1 1 1]
     [0 1 1 1 0]]
    """
    import numpy as np
    from scipy import ndimage

    reach = max(1, len(lesion) // 48)
    outer = ndimage.binary_dilation(lesion, iterations=reach)
    return np.asarray(outer & ~ndimage.binary_erosion(lesion, iterations=reach), dtype=bool)


def find_head(image: npt.NDArray[Any]) -> Masks:
    """Foreground of one slice: above Otsu's threshold, its gaps closed, the largest connected part,
    holes filled.
    """
    import numpy as np
    from scipy import ndimage

    bright = np.pad(image > find_threshold(image), reach := max(1, len(image) // 48))
    # A scalp that is dark in places would leave the inside open to the background.
    closed = ndimage.binary_closing(bright, iterations=reach)[reach:-reach, reach:-reach]
    parts, _ = ndimage.label(closed)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return np.asarray(ndimage.binary_fill_holes(largest), dtype=bool)


def find_threshold(image: npt.NDArray[Any]) -> float:
    """Grey value that divides an image into two classes as far apart as they can be. Reference:
    Otsu 1979, Eq. 18.

    >>> import numpy as np
    >>> find_threshold(np.array([[0, 1, 1], [8, 9, 9]])) > 1
    True
    """
    import numpy as np

    counts, edges = np.histogram(image, bins=256)
    below, middles = np.cumsum(counts)[:-1], (edges[:-1] + edges[1:]) / 2
    above, sums = counts.sum() - below, np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1 + np.argmax(np.nan_to_num(between))])
