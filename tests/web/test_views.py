"""What the views say, against the files they read."""

from __future__ import annotations

import hashlib
import shutil

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import ResultError
from robustmri.report.wording import interval, percent
from robustmri.results.budget import NO_BUDGET, Budget
from robustmri.results.cases import load_cases
from robustmri.results.certificate import Certificate, save_certificate
from robustmri.results.comparison import load_comparison
from robustmri.results.schema import RobustnessReport, hash_files, load_result, save_result
from robustmri.web.folder import Folder
from robustmri.web.views.overview import overview
from tiny import column, read_outcomes, rows_of


def get(client, path, **query):
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_overview_says_what_the_files_say(client, shown):
    said = get(client, "/api/overview")
    assert [one["name"] for one in said["results"]] == ["before", "deep/after"]
    assert [one["name"] for one in said["reports"]] == ["report.html"]
    for one in said["results"]:
        result = load_result(shown / one["name"])
        worst = next(n for n in result.results if (n.attack, n.eps) == ("worst", 0.04))
        assert one["worst"]["words"] == percent(worst.accuracy)
        assert one["worst"]["interval"] == interval(worst)
        assert one["warned"] == ["Twice the steps"]


def test_an_unreadable_thing_is_named_with_its_reason(tmp_path, shown):
    shutil.copytree(shown / "before", tmp_path / "bad")
    files = hash_files(shown / "before", ("outcomes.parquet",))
    result = load_result(shown / "before")
    save_result(msgspec.structs.replace(result, files=files), tmp_path / "bad")
    (tmp_path / "bad" / "outcomes.parquet").write_bytes(b"")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "classifier.json").write_text("{]")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "cohort.json").write_text('{"schema_version": 1}')
    said = overview(Folder(tmp_path))
    assert said["results"] == said["runs"] == said["cohorts"] == []
    why = {one["name"]: one["why"] for one in said["left_out"]}
    assert set(why) == {"bad", "run", "cohort"}
    assert "was changed after" in why["bad"]
    assert not any(str(tmp_path) in reason for reason in why.values())


def test_a_result_is_read_again_when_it_changes(tmp_path, shown):
    shutil.copytree(shown / "before", tmp_path / "r")
    folder = Folder(tmp_path)
    (one,) = folder.look().of("result")
    assert folder.result(one.id) is folder.result(one.id)
    changed = msgspec.structs.replace(folder.result(one.id), title="Another")
    save_result(changed, tmp_path / "r")
    assert folder.result(one.id).title == "Another"


def test_cases_are_those_of_the_table(client, ids, shown):
    rows = read_outcomes(shown / "before")
    clean = rows_of(rows, "none")
    worst = {row["case_id"]: row for row in rows_of(rows, "worst", 0.04)}
    page = get(client, f"/api/results/{ids['before']}/cases")
    assert page["total"] == len(clean)
    assert {one["name"] for one in page["cases"]} <= set(column(clean, "case_id"))
    for row in clean:
        fate = "wrong" if row["fooled"] else "falls" if worst[row["case_id"]]["fooled"] else "holds"
        page["fates"][fate] -= 1
    assert set(page["fates"].values()) == {0}


@pytest.mark.parametrize("fate", ["holds", "falls", "wrong"])
def test_filters_keep_what_they_say(fate, client, ids):
    result = get(client, f"/api/results/{ids['deep/after']}")
    patient = result["patients"][1]
    for query in ({}, {"class": 1}, {"patient": patient["id"]}):
        page = get(client, f"/api/results/{ids['deep/after']}/cases", fate=fate, **query)
        assert all(one["fate"] == fate for one in page["cases"])
        if "class" in query:
            assert {one["label"] for one in page["cases"]} <= {result["classes"][1]}
        if "patient" in query:
            assert {one["patient"] for one in page["cases"]} <= {patient["name"]}


def test_the_most_fragile_come_first(client, ids, shown):
    page = get(client, f"/api/results/{ids['deep/after']}/cases", sort="fragile")
    table = load_cases(shown / "deep" / "after")
    eps = dict(zip(table.column("case_id"), table.smallest_eps("linf"), strict=True))
    shown_eps = [eps[one["name"]] for one in page["cases"]]
    assert shown_eps == sorted(shown_eps)
    assert len(set(shown_eps)) > 3
    back = get(client, f"/api/results/{ids['deep/after']}/cases", sort="sturdy")
    assert eps[back["cases"][0]["name"]] == max(eps.values())


def test_what_nothing_fooled_is_not_more_fragile_than_its_equals(client, ids, shown):
    page = get(client, f"/api/results/{ids['deep/after']}/cases", sort="sturdy")
    table = load_cases(shown / "deep" / "after")
    eps = table.smallest_eps("linf")
    assert np.isinf(eps).sum() > 1
    sturdiest = get(client, f"/api/results/{ids['deep/after']}/cases/{page['cases'][0]['id']}")
    assert sturdiest["less_fragile"] == 0


def test_the_smallest_eps_is_the_smallest_that_fooled(shown):
    table = load_cases(shown / "before")
    rows = read_outcomes(shown / "before")
    for case, eps in zip(table.column("case_id"), table.smallest_eps("linf"), strict=True):
        mine = [row for row in rows if row["case_id"] == case and row["norm"] == "linf"]
        fooling = [row["eps_image"] for row in mine if row["fooled"] and row["attack"] != "worst"]
        wrong = rows_of([row for row in rows if row["case_id"] == case], "none")[0]["fooled"]
        assert eps == (0 if wrong else min(fooling, default=np.inf))


def test_without_a_radius_the_nearest_fooling_image_counts(tmp_path, shown):
    table = pq.read_table(shown / "before" / "outcomes.parquet")
    sizes = np.where(np.isinf(table["distance_l2"]), 0.25, table["distance_l2"])
    place = table.column_names.index("distance_l2")
    found = table.set_column(place, "distance_l2", pa.array(sizes))
    pq.write_table(found, tmp_path / "outcomes.parquet")
    eps = load_cases(tmp_path).smallest_eps("l2")
    assert set(eps) <= {0.0, 0.25, np.inf}
    assert (eps == 0.25).sum() > 10


def test_fates_need_the_attack(shown):
    table = load_cases(shown / "before")
    at = Budget("linf", 0.04, "image", 0.04)
    assert set(table.fates("no such attack", at)) <= {"", "wrong"}
    assert (table.right_under("none", NO_BUDGET) == table.right).all()


@pytest.mark.parametrize("fault", ["a case twice", "a case without its row", "no label_confidence"])
def test_a_table_of_another_shape_is_refused(fault, tmp_path, shown):
    table = pq.read_table(shown / "before" / "outcomes.parquet")
    clean = np.flatnonzero(table["attack"].to_numpy() == "none")[:1]
    if fault == "a case twice":
        table = pa.concat_tables([table, table.take(clean)])
    elif fault == "a case without its row":
        table = table.take(np.setdiff1d(np.arange(len(table)), clean))
    else:
        table = table.drop_columns(["label_confidence"])
    pq.write_table(table, tmp_path / "outcomes.parquet")
    with pytest.raises(ResultError, match="Evaluate again"):
        load_cases(tmp_path)


def test_a_case_tells_every_answer(client, ids, shown):
    id = ids["before"]
    rows = read_outcomes(shown / "before")
    for one in get(client, f"/api/results/{id}/cases")["cases"][:3]:
        case = get(client, f"/api/results/{id}/cases/{one['id']}")
        mine = [row for row in rows if row["case_id"] == one["name"]]
        assert len(case["answers"]) == len(mine)
        said = {(a["attack"], a["eps"]): (a["prediction"], a["right"]) for a in case["answers"]}
        for row in mine:
            eps = None if np.isinf(row["eps"]) else row["eps"]
            assert said[row["attack"], eps] == (
                row["prediction"],
                row["prediction"] == row["label"],
            )
        assert [a["eps"] for a in case["answers"] if a["attack"] == "worst"] == sorted(
            a["eps"] for a in case["answers"] if a["attack"] == "worst"
        )


def test_neighbours_follow_the_list(client, ids):
    id, query = ids["before"], {"fate": "falls", "sort": "sturdy"}
    listed = [one["id"] for one in get(client, f"/api/results/{id}/cases", **query)["cases"]]
    trios = [*zip([None, *listed], listed, [*listed[1:], None], strict=False)]
    for before, here, after in (*trios[:3], trios[-1]):
        case = get(client, f"/api/results/{id}/cases/{here}", **query)
        assert (case["neighbours"]["before"], case["neighbours"]["after"]) == (before, after)
    wrong = get(client, f"/api/results/{id}/cases", fate="wrong")["cases"][0]["id"]
    case = get(client, f"/api/results/{id}/cases/{wrong}", **query)
    assert case["neighbours"]["place"] is None


def test_pictures_are_those_of_the_examples(client, ids, shown):
    id, result = ids["before"], load_result(shown / "before")
    arrays = np.load(shown / "before" / "examples.npz")
    known = {one["name"]: one["id"] for one in every_case(client, id)}
    for example in result.examples:
        path = f"/api/results/{id}/cases/{known[example.case_id]}"
        pixels = np.frombuffer(client.get(f"{path}/slice").content, "<u2")
        change = np.frombuffer(client.get(f"{path}/change").content, "<f4")
        assert (pixels == arrays["clean"][example.position].ravel()).all()
        attacked = pixels / 65535 + change
        assert np.allclose(attacked, arrays["attacked"][example.position].ravel(), atol=1e-6)
        assert client.get(f"{path}/thumbnail.png").content.startswith(b"\x89PNG")
    other = next(
        case for name, case in known.items() if name not in {e.case_id for e in result.examples}
    )
    assert client.get(f"/api/results/{id}/cases/{other}/slice").status_code == 404


def every_case(client, id):
    cases, page = [], get(client, f"/api/results/{id}/cases")
    while page["cases"]:
        cases += page["cases"]
        page = get(client, f"/api/results/{id}/cases", **{"from": len(cases)})
    assert len(cases) == page["total"]
    return cases


def test_compare_counts_who_was_saved_and_lost(client, ids, shown):
    rows = [read_outcomes(shown / name) for name in ("before", "deep/after")]
    right = [{r["case_id"]: not r["fooled"] for r in rows_of(one, "worst", 0.04)} for one in rows]
    pairs = [(right[0][case], right[1][case]) for case in right[0]]
    said = get(client, f"/api/compare/{ids['before']}/{ids['deep/after']}")
    expected = {
        "saved": pairs.count((False, True)),
        "lost": pairs.count((True, False)),
        "both": pairs.count((True, True)),
        "neither": pairs.count((False, False)),
    }
    assert said["total"] == expected
    assert expected["saved"] > 10
    for part in ("classes", "patients"):
        assert {turn: sum(one[turn] for one in said[part]) for turn in expected} == expected
    assert len(said["cases"]) == expected["saved"]
    back = get(client, f"/api/compare/{ids['deep/after']}/{ids['before']}", show="lost")
    assert back["total"]["lost"] == expected["saved"]


def test_with_a_target_cases_fall_where_they_are_called_so(tmp_path, shown, open_on):
    for name in ("before", "deep/after"):
        folder = shutil.copytree(shown / name, tmp_path / name)
        result, table = load_result(folder), pq.read_table(folder / "outcomes.parquet")
        results = [
            one if one.attack == "none" else msgspec.structs.replace(one, target="glioma")
            for one in result.results
        ]
        save_result(msgspec.structs.replace(result, results=results, confusions=[]), folder)
        aimed = ["" if attack == "none" else "glioma" for attack in table["attack"].to_pylist()]
        table = table.set_column(table.column_names.index("target"), "target", [aimed])
        pq.write_table(table, folder / "outcomes.parquet")
    client = open_on(tmp_path)
    ids = {one["name"]: one["id"] for one in get(client, "/api/overview")["results"]}
    said = get(client, f"/api/results/{ids['before']}")["fates"]
    assert said["falls"] == "Right, until it is called glioma"
    rows = read_outcomes(tmp_path / "before")
    called = {
        row["case_id"]: row["prediction"] == "glioma" != row["label"]
        for row in rows_of(rows, "worst", 0.04)
    }
    counts = get(client, f"/api/results/{ids['before']}/cases")["fates"]
    fell = [row for row in rows_of(rows, "none") if not row["fooled"] and called[row["case_id"]]]
    assert counts["falls"] == len(fell) > 0
    compared = get(client, f"/api/compare/{ids['before']}/{ids['deep/after']}")
    assert compared["turns"]["neither"] == "Called glioma under attack in both"
    kept = compared["total"]["both"] + compared["total"]["lost"]
    assert kept == sum(not so for so in called.values())


def test_compare_shows_what_was_paired_by_patient(tmp_path, paired, open_on):
    shutil.copytree(paired, tmp_path / "folder")
    client = open_on(tmp_path / "folder")
    ids = {one["name"]: one["id"] for one in get(client, "/api/overview")["results"]}
    path, back = (
        f"/api/compare/{ids[one]}/{ids[other]}"
        for one, other in (("before", "after"), ("after", "before"))
    )
    made = load_comparison(paired / "compared.json")
    there, turned = get(client, path)["paired"], get(client, back)["paired"]
    assert client.get(f"/reports/{there['page']}").status_code == 200
    for row, said, other in zip(made.numbers, there["numbers"], turned["numbers"], strict=True):
        assert said["difference"] == [row.low, row.difference, row.high]
        assert other["difference"] == [-row.high, -row.difference, -row.low]
        assert (said["first"], said["second"]) == (other["second"], other["first"])
        assert (said["saved"], said["lost"]) == (row.saved, row.lost)
        assert (other["saved"], other["lost"]) == (row.lost, row.saved)
        assert said["people_saved"] == row.patients_saved == other["people_lost"]
    # It says nothing of other outcomes of the same classifiers.
    after = tmp_path / "folder" / "after"
    table = pq.read_table(after / "outcomes.parquet")
    pq.write_table(table.replace_schema_metadata({"made": "again"}), after / "outcomes.parquet")
    digest = hash_files(after, ("outcomes.parquet", "examples.npz"))
    result = msgspec.json.decode((after / "robustness.json").read_bytes(), type=RobustnessReport)
    save_result(msgspec.structs.replace(result, files=digest), after)
    assert get(client, path)["paired"] is None


def test_many_patients_are_looked_for_by_name(client, ids, monkeypatch):
    path = f"/api/results/{ids['before']}"
    every = get(client, path)["patients"]
    monkeypatch.setattr("robustmri.web.views.result.MOST_PATIENTS", 2)
    last = every[-1]
    few = get(client, path, patient=last["id"])
    assert (len(few["patients"]), few["patients_found"], few["patient"]) == (2, len(every), last)
    found = get(client, f"{path}/patients", like=last["name"].upper())
    assert last in found["patients"]
    assert get(client, f"{path}/patients", like="nobody")["patients"] == []


def test_compare_keeps_a_class_and_a_patient(client, ids):
    path = f"/api/compare/{ids['before']}/{ids['deep/after']}"
    whole = get(client, path)
    for row in whole["classes"]:
        only = get(client, path, **{"class": row["id"]})
        assert (only["found"], only["total"]) == (row["saved"], whole["total"])
        assert {one["label"] for one in only["cases"]} <= {row["name"]}
    patient = max(whole["patients"], key=lambda row: row["saved"])
    only = get(client, path, patient=patient["id"])
    assert {one["patient"] for one in only["cases"]} == {patient["name"]}
    for wrong in ({"class": "9"}, {"patient": "nobody"}, {"show": "all"}):
        assert client.get(path, params=wrong).status_code in (404, 422)


def test_results_of_other_slices_are_not_compared(tmp_path, shown, open_on):
    shutil.copytree(shown / "before", tmp_path / "a")
    shutil.copytree(shown / "before", tmp_path / "b")
    result = load_result(tmp_path / "b")
    split = msgspec.structs.replace(result.split, fingerprint="other")
    save_result(msgspec.structs.replace(result, split=split), tmp_path / "b")
    client = open_on(tmp_path)
    one, other = (row["id"] for row in get(client, "/api/overview")["results"])
    answer = client.get(f"/api/compare/{one}/{other}")
    assert answer.status_code == 422
    assert "cannot be compared" in answer.json()["error"]
    assert get(client, f"/api/results/{one}")["beside"] == []


def test_a_cohort_in_the_folder_gives_the_pictures(tiny_cohort, tmp_path, shown, open_on):
    from robustmri.data.cohort import Cohort

    shutil.copytree(tiny_cohort, tmp_path / "cohort")
    cohort = Cohort.open(tiny_cohort)
    shutil.copytree(shown / "before", tmp_path / "r")
    result = load_result(tmp_path / "r")
    facts = msgspec.structs.replace(result.cohort, fingerprint=cohort.fingerprint, size=cohort.size)
    table = pq.read_table(tmp_path / "r" / "outcomes.parquet")
    # The first cases of the table get the names of the first of the cohort.
    names = table["case_id"].to_numpy()
    own = dict(zip(dict.fromkeys(names), (case.case_id for case in cohort.cases), strict=False))
    renamed = pa.array([own.get(name, name) for name in names])
    pq.write_table(table.set_column(0, "case_id", renamed), tmp_path / "r" / "outcomes.parquet")
    save_result(
        msgspec.structs.replace(result, cohort=facts, examples=[], files={}), tmp_path / "r"
    )
    client = open_on(tmp_path)
    (id,) = (one["id"] for one in get(client, "/api/overview")["results"])
    for one in every_case(client, id):
        path = f"/api/results/{id}/cases/{one['id']}"
        case, picture = get(client, path), client.get(f"{path}/slice")
        found = [case for case in cohort.cases if case.case_id == one["name"]]
        assert case["image"] == bool(found)
        if found:
            pixels = np.frombuffer(picture.content, "<u2").reshape(cohort.size, cohort.size)
            assert (pixels == cohort.images[found[0].index]).all()
            assert case["outline"].startswith("M")
            break
    else:
        pytest.fail("no case of the cohort")


def test_a_result_shows_its_certificate(tmp_path, shown, open_on):
    made = shown / "before"
    for name in ("with", "without", "damaged"):
        shutil.copytree(made, tmp_path / name)
    result = load_result(made)
    number = next(one for one in result.results if one.unit == "slice" and one.eps)
    patient = msgspec.structs.replace(number, unit="patient")
    facts = {"sigma": 0.25, "samples": 100, "alpha": 0.001, "alpha_each": 1e-5, "largest": 1.0}
    counts = {"n_slices": 27, "n_patients": 9, "abstained": 2, "median_radius": 0.31}
    of = {
        "checkpoint_sha256": result.model.checkpoint_sha256,
        "split": result.split.fingerprint,
    }
    for name in ("with", "damaged"):
        place = tmp_path / name / "certificate"
        place.mkdir()
        (place / "certificates.parquet").write_bytes(b"rows")
        files = {"certificates.parquet": hashlib.sha256(b"rows").hexdigest()}
        lists = {"certified": [number, patient], "attacked": [], "checks": [], "settings": {}}
        save_certificate(Certificate(**facts, **counts, **of, **lists, files=files), place)
    (tmp_path / "damaged" / "certificate" / "certificates.parquet").write_bytes(b"others")
    client = open_on(tmp_path)
    ids = {one["name"]: one["id"] for one in get(client, "/api/overview")["results"]}
    said = {name: get(client, f"/api/results/{id}")["certificate"] for name, id in ids.items()}
    assert said["without"] is None
    assert said["with"]["rows"][0][0] == f"{number.eps:.3g}"
    assert "Median radius of the slices that are answered rightly: 0.31" in said["with"]["notes"][0]
    assert "was changed after" in said["damaged"]["why"]
    assert str(tmp_path) not in said["damaged"]["why"]


def test_an_address_where_nothing_is_shows_the_page_to_a_browser(client):
    answer = client.get("/nowhere", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert answer.text == client.get("/").text
    assert client.get("/nowhere").json() == {"error": "There is nothing at this address."}


def test_every_attack_is_explained_where_it_stands(client, ids):
    id = ids["before"]
    rows = get(client, f"/api/results/{id}")["numbers"]
    assert all(row["about"].endswith(".") for row in rows)
    case = get(client, f"/api/results/{id}/cases")["cases"][0]["id"]
    said = get(client, f"/api/results/{id}/cases/{case}")
    assert {answer["attack"] for answer in said["answers"]} <= set(said["about"])


def test_read_only_offers_nothing_to_start(shown, open_on):
    client = open_on(shown, read_only=True)
    one, other = (row["id"] for row in get(client, "/api/overview")["results"])
    assert get(client, f"/api/results/{one}")["search"] == []
    case = get(client, f"/api/results/{one}/cases")["cases"][0]["id"]
    assert get(client, f"/api/results/{one}/cases/{case}")["search"] == []
    assert get(client, f"/api/compare/{one}/{other}")["read_only"]


def test_what_will_be_asked_for_first_is_read_ahead(shown):
    from robustmri.web.jobs import Jobs
    from robustmri.web.routes import Workbench

    folder = Folder(shown)
    Workbench(folder, Jobs(shown), read_only=True).read_ahead()
    read = {path.name for path in folder._kept["facts"]}
    assert read == {"before", "after"}


def test_a_report_is_shown_in_a_sandbox(client):
    (one,) = get(client, "/api/overview")["reports"]
    answer = client.get(f"/reports/{one['id']}")
    assert "Robustness report" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_a_page_of_others_is_no_report(tmp_path):
    (tmp_path / "other.html").write_text("<script>alert(1)</script>")
    assert overview(Folder(tmp_path))["reports"] == []


def test_markup_in_names_stays_text(tmp_path, shown, open_on):
    name = "<img src=x onerror=alert(1)>"
    shutil.copytree(shown / "before", tmp_path / name)
    client = open_on(tmp_path)
    answer = client.get("/api/overview")
    assert answer.headers["content-type"] == "application/json"
    assert [one["name"] for one in answer.json()["results"]] == [name]
    assert name not in client.get("/").text
