"""Who takes part in each comparison: ours first, then the peers."""

from __future__ import annotations

from benchmarks import contenders as by
from benchmarks.contenders import OURS, Contender

FGSM_FIRST = f"{OURS}, FGSM first"
ALL_QUERIES = f"{OURS}, all queries"
PGD = (
    Contender(OURS, by.ours_pgd, note="as an evaluation runs it"),
    Contender(FGSM_FIRST, by.ours_fgsm_then_pgd, note="PGD on what FGSM leaves standing"),
    Contender(f"{OURS}, search in float32", by.ours_pgd_in_fp32, note="without bf16"),
    Contender(f"{OURS}, no image leaves", by.ours_pgd_to_the_end, note="without survivors only"),
    Contender("torchattacks", by.torchattacks_pgd, "torchattacks"),
    Contender("foolbox", by.foolbox_pgd, "foolbox"),
    Contender("ART", by.art_pgd, "art"),
    Contender("secml-torch", by.secml_pgd, "secmlt", note="its native PGD"),
)
CW = (
    Contender(OURS, by.ours_cw, note="cw: the margin climbed within eps, steps as PGD"),
    Contender(f"{OURS} cw-l2", by.ours_cw_l2, note="searches and steps as foolbox"),
    Contender(
        f"{OURS} cw-l2, from the boundary", by.ours_cw_l2_from_boundary, note="60 steps, no search"
    ),
    Contender(
        "torchattacks", by.torchattacks_cw, "torchattacks", note="c = 1, 50 steps, no search of c"
    ),
    Contender("foolbox", by.foolbox_cw, "foolbox", note="5 values of c, 50 steps"),
    Contender(
        "ART", by.art_cw, "art", note="5 values of c, its own 10 steps, each with a line search"
    ),
    Contender("secml-torch", by.secml_cw, "secmlt", note="foolbox's, called by secml-torch"),
)
STANDARD_10 = (
    Contender(OURS, by.ours_standard, note="standard"),
    Contender(
        ALL_QUERIES, by.ours_standard_with_all_queries, note="Square's last query on all that stand"
    ),
    Contender(f"{OURS}, 10 steps", by.ours_standard_in_10_steps, note="standard(steps=10)"),
    Contender(
        "torchattacks",
        by.torchattacks_autoattack,
        "torchattacks",
        note="AutoAttack, its own 10 steps",
    ),
    Contender(
        "torchattacks, 100 steps",
        by.torchattacks_autoattack_paper,
        "torchattacks",
        1,
        note="the same attacks with the paper's 100 steps",
    ),
)
STANDARD_10_ART = (
    Contender(OURS, by.ours_standard, note="standard"),
    Contender(
        "ART",
        by.art_autoattack,
        "art",
        1,
        note="AutoAttack: two APGD, DeepFool, Square, 5 restarts each",
    ),
)
STANDARD_3 = (
    Contender(OURS, by.ours_standard, note="standard"),
    Contender(
        ALL_QUERIES, by.ours_standard_with_all_queries, note="Square's last query on all that stand"
    ),
    Contender(
        "torchattacks, whole",
        by.torchattacks_autoattack,
        "torchattacks",
        1,
        note="AutoAttack, n_classes=3",
    ),
    Contender(
        "torchattacks",
        by.torchattacks_safe_parts,
        "torchattacks",
        1,
        note="the parts that run, its 10 steps",
    ),
    Contender(
        "torchattacks, 100 steps",
        by.torchattacks_safe_parts_paper,
        "torchattacks",
        1,
        note="the parts that run, the paper's 100 steps",
    ),
)
CURVE = (
    Contender(
        OURS, by.ours_curve, note="one search for the smallest radius of each image, verified"
    ),
    Contender("torchattacks", by.torchattacks_curve, "torchattacks", note="a loop over the radii"),
    Contender("foolbox", by.foolbox_curve, "foolbox", note="epsilons=[...]"),
)
