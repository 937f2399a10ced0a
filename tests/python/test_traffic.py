"""The traffic generator itself: its hash, its buckets, its arms."""

import gzip

import pytest

from traffic import Scenario, Traffic, bucket, murmur3_32, outcome


@pytest.mark.parametrize(
    ("data", "hash_"),
    [
        (b"", 0x00000000),
        (b"a", 0x3C2569B2),
        (b"abcd", 0x43ED676A),
        (b"hello", 0x248BFA47),
        (b"hello, world", 0x149BBB7F),
        (b"The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    ],
)
def test_murmur3_gives_the_published_hashes(data, hash_):
    assert murmur3_32(data) == hash_


def test_a_user_stays_on_the_canary_while_its_weight_grows():
    users = [f"user-{n}" for n in range(2000)]
    before = set()
    for weight in [1, 5, 25, 50, 100]:
        now = {user for user in users if bucket("support-bot", user) < weight}
        assert before <= now
        assert abs(len(now) / len(users) - weight / 100) < 0.04
        before = now
    assert len(before) == len(users)


def test_what_was_not_recorded_is_left_out():
    assert outcome({"pass": "1", "cost_usd": "", "latency_s": "1.5"}) == {"eval_pass": True, "latency_ms": 1500.0}


ENTRY = {
    "id": "T1", "outcome": "rollback", "file": "t.csv.gz", "baseline": "a", "canary": "b",
    "measured": {"rows_baseline": 2, "rows_canary": 1},
}  # fmt: skip


@pytest.fixture
def scenario_folder(tmp_path):
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("version,trial,pass,cost_usd\na,0,1,0.5\na,1,1,0.25\nb,0,0,2\nc,0,0,9\n")
    return tmp_path


def test_each_version_serves_its_own_outcomes(scenario_folder):
    scenario = Scenario.load(scenario_folder, ENTRY)
    traffic = Traffic(scenario, "t1", seed=7)
    assert {traffic.serve("now")["version"] for _ in range(200)} == {"a"}
    traffic.weight = 50
    samples = [traffic.serve("now") for _ in range(400)]
    assert {(s["version"], s["eval_pass"]) for s in samples} == {("a", True), ("b", False)}
    assert 150 < traffic.served["b"] < 250
    again = Traffic(scenario, "t1", seed=7)
    assert [again.serve("now") for _ in range(3)] != samples[:3]  # at weight 0 they stay on the baseline
    assert {s["version"] for s in (again.serve("now") for _ in range(100))} == {"a"}


def test_trials_of_one_version_make_two_arms(scenario_folder):
    entry = {**ENTRY, "canary": "a", "baseline_trials": [0], "canary_trials": [1]}
    entry["measured"] = {"rows_baseline": 1, "rows_canary": 1}
    scenario = Scenario.load(scenario_folder, entry)
    assert scenario.canary == "a-again"
    assert scenario.outcomes["a-again"] == [{"eval_pass": True, "cost_usd": 0.25}]


def test_a_file_that_is_not_what_the_manifest_says_is_refused(scenario_folder):
    entry = {**ENTRY, "measured": {"rows_baseline": 3, "rows_canary": 1}}
    with pytest.raises(ValueError, match="T1: \\(2, 1\\) rows for the two versions, the manifest states \\(3, 1\\)"):
        Scenario.load(scenario_folder, entry)
