"""The checker can fail: a history without fault passes, and each rule has histories that break it and nothing else."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from checker import RULES, check  # noqa: E402
from history import History, parse_record  # noqa: E402

PLAN = "ring / ring / R2 / zigzag / ring / none"


def good():
    """Two jobs on two nodes: one that came through at its second attempt, over a restart of the coordinator and the
    death of an executor, and one that was cancelled."""
    one = {"id": "j-1", "name": "ring", "state": "JOB_STATE_SUCCEEDED", "attempt": 2, "labels": {"request": "r-1"},
           "max_attempts": 5, "output": {"file": "1"},
           "attempts": [{"attempt": 1, "error": {"message": "rank 0 on node-a/0 failed"}}, {"attempt": 2}]}
    two = {"id": "j-2", "name": "ring", "state": "JOB_STATE_CANCELLED", "attempt": 1, "labels": {"request": "r-2"},
           "max_attempts": 5, "output": {"file": "2"}, "attempts": [{"attempt": 1}]}

    def seen(state, revision, attempt):
        return {"state": f"JOB_STATE_{state}", "revision": str(revision), "attempt": attempt}
    return History(
        driver=[
            {"t": 1, "what": "acknowledged", "request": "r-1", "job": "j-1"},
            {"t": 1, "what": "acknowledged", "request": "r-1", "job": "j-1"},
            {"t": 2, "what": "acknowledged", "request": "r-2", "job": "j-2"},
            {"t": 3, "what": "cancel", "job": "j-2"},
            {"t": 5, "what": "fault begins", "fault": 1, "kind": "coordinator killed", "node": "coordinator"},
            {"t": 5, "what": "exit", "name": "coordinator", "pid": 1, "code": -9, "expected": True},
            {"t": 6, "what": "fault ends", "fault": 1, "kind": "coordinator killed"},
        ],
        workers={
            "node-a": [[
                {"t": 1, "message": "attached", "term": "1"},
                {"t": 2, "message": "command obeyed", "command": "start", "term": "1", "job": "j-1", "attempt": "1"},
                {"t": 2, "message": "rank started", "job": "j-1", "attempt": "1", "rank": "0", "device": "0"},
                {"t": 3, "message": "executor ended", "job": "j-1", "attempt": "1", "rank": "0",
                 "how": "was killed by signal 9 (Killed)"},
                {"t": 7, "message": "attached", "term": "2"},
                {"t": 8, "message": "command obeyed", "command": "start", "term": "2", "job": "j-1", "attempt": "2"},
                {"t": 8, "message": "rank started", "job": "j-1", "attempt": "2", "rank": "0", "device": "0"},
                {"t": 9, "message": "executor ended", "job": "j-1", "attempt": "2", "rank": "0", "how": "exited with code 0"},
            ]],
            "node-b": [[{"t": 1, "message": "attached", "term": "1"}], [{"t": 8, "message": "attached", "term": "2"}]],
        },
        watched={"j-1": [seen("PENDING", 1, 0), seen("RUNNING", 2, 1), seen("RUNNING", 9, 2), seen("SUCCEEDED", 12, 2)],
                 "j-2": [seen("RUNNING", 3, 1), seen("CANCELLED", 4, 1)]},
        jobs={"j-1": one, "j-2": two},
        end={"settled": True, "kept_jobs": 100, "listed": {"j-1": "JOB_STATE_SUCCEEDED", "j-2": "JOB_STATE_CANCELLED"}, "staged": [],
             "files": [], "ranks": [], "processes": [], "exit_codes": {"coordinator": 0, "node-a": 0, "node-b": 0},
             "nodes": [{"name": "node-a", "state": "NODE_STATE_READY", "devices": [{}, {}]}],
             "results": {"j-1": {"present": True, "sha256": "aa", "plan": PLAN, "pinned": True}, "j-2": {"present": False}},
             "references": {PLAN: {"job": "j-3", "state": "JOB_STATE_SUCCEEDED", "present": True, "sha256": "aa", "plan": PLAN}}})


class Checker(unittest.TestCase):
    broken = set()  # rules that some test has seen broken

    def breaks(self, rule, harm, pattern):
        """`harm` makes a good history break just that rule."""
        history = good()
        harm(history)
        found = check(history)
        self.assertEqual({v["rule"] for v in found}, {rule}, found)
        self.assertRegex("\n".join(v["what"] for v in found), pattern)
        Checker.broken.add(rule)

    def test_a_run_that_kept_its_promises_passes(self):
        self.assertEqual(check(good()), [])

    def test_not_all_had_ended(self):
        self.breaks("everything settles", lambda h: h.end.update(settled=False), "a process did not come back")

    def test_an_acknowledged_job_is_gone(self):
        rule = "every acknowledged job is there"
        self.breaks(rule, lambda h: h.end["listed"].pop("j-2"), "j-2 was acknowledged")

        def never_ended(h):
            h.end["kept_jobs"] = 1
            for jobs in (h.jobs, h.end["listed"], h.watched, h.end["results"]):
                jobs.pop("j-2")
        self.breaks(rule, never_ended, "j-2 was acknowledged")

    def test_old_jobs_are_forgotten(self):
        history = good()
        history.end["listed"].pop("j-2")
        history.end["kept_jobs"] = 1
        self.assertEqual(check(history), [])

    def test_a_request_started_two_jobs(self):
        def answers(h):
            h.driver[1]["job"] = "j-2"
        self.breaks("a request starts one job", answers, "r-1 started j-1, j-2")

        def labels(h):  # one that nobody was told of
            h.jobs["j-2"]["labels"]["request"] = "r-1"
        self.breaks("a request starts one job", labels, "r-1 started j-1, j-2")

    def test_a_job_ended_twice(self):
        rule = "every job ends once"

        def otherwise(h):
            h.watched["j-1"].append({"state": "JOB_STATE_FAILED", "revision": "13", "attempt": 2})
        self.breaks(rule, otherwise, "SUCCEEDED and as JOB_STATE_FAILED")

        def goes_on(h):
            h.watched["j-1"].append({"state": "JOB_STATE_RUNNING", "revision": "13", "attempt": 3})
        self.breaks(rule, goes_on, "go on after its end")

        def later(h):
            h.end["listed"]["j-1"] = "JOB_STATE_RUNNING"
        self.breaks(rule, later, "had ended as JOB_STATE_SUCCEEDED and is JOB_STATE_RUNNING")

        def seen_otherwise(h):
            h.watched["j-2"][-1]["state"] = "JOB_STATE_FAILED"
        self.breaks(rule, seen_otherwise, "seen to end as JOB_STATE_FAILED")

        def never(h):
            h.jobs["j-2"]["state"] = h.end["listed"]["j-2"] = "JOB_STATE_RUNNING"
            h.watched.pop("j-2")
        self.breaks(rule, never, "j-2 is JOB_STATE_RUNNING in the end")

    def test_a_watcher_saw_the_past(self):
        def revision(h):
            h.watched["j-1"][2]["revision"] = "1"
        self.breaks("what watchers see only grows", revision, "revision 2, attempt 1 was followed by 1, 2")

        def attempt(h):
            h.watched["j-1"][2]["attempt"] = 0
        self.breaks("what watchers see only grows", attempt, "attempt 1 was followed by 9, 0")

    def test_a_watcher_that_asks_anew_may_see_the_same_state_again(self):
        history = good()
        history.watched["j-1"].insert(2, dict(history.watched["j-1"][1]))
        self.assertEqual(check(history), [])

    def test_an_attempt_came_twice(self):
        def again(h):
            h.jobs["j-1"]["attempts"][0]["attempt"] = 2
        self.breaks("attempts are numbered once", again, r"\[2, 2\]")

    def fail(self, history, reason, message, **changes):
        job = history.jobs["j-1"]
        job |= {"state": "JOB_STATE_FAILED", "error": {"message": message, "details": [{"reason": reason}]}, **changes}
        history.watched["j-1"][-1]["state"] = history.end["listed"]["j-1"] = job["state"]
        history.end["results"]["j-1"] = {"present": False}

    def test_a_failure_that_nothing_explains(self):
        rule = "a failure has its reason"
        self.breaks(rule, lambda h: self.fail(h, "RANK_FAILED", "rank 0"), "failed after 2 of 5 attempts")
        self.breaks(rule, lambda h: self.fail(h, "VERIFICATION_FAILED", "rows differ"), "VERIFICATION_FAILED")
        self.breaks(rule, lambda h: self.fail(h, "STORAGE", "No space left"), "No space left")
        self.breaks(rule, lambda h: self.fail(h, "DEADLINE_EXCEEDED", "20 s"), "DEADLINE_EXCEEDED")
        self.breaks(rule, lambda h: self.fail(h, "RANK_LOST", "three times the same, without progress"), "RANK_LOST")

        def unasked(h):
            h.driver = [r for r in h.driver if r["what"] != "cancel"]
        self.breaks(rule, unasked, "nobody asked for it")

    def test_failures_that_are_explained(self):
        def passes(harm):
            history = good()
            harm(history)
            self.assertEqual(check(history), [])
        passes(lambda h: self.fail(h, "RANK_FAILED", "attempt 2 of 2", max_attempts=2))
        passes(lambda h: self.fail(h, "DEADLINE_EXCEEDED", "20 s", deadline=20))

        def full(h):
            h.driver[4]["kind"] = h.driver[6]["kind"] = "disk of the data full"
            self.fail(h, "STORAGE", "No space left")
        passes(full)

        def thrice(h):
            self.fail(h, "NO_PROGRESS", "three times the same, without progress",
                      attempts=[{"attempt": n} for n in (1, 2, 3)], attempt=3)
            h.watched["j-1"][-1]["attempt"] = 3
        passes(thrice)

    def test_a_command_of_the_past_was_obeyed(self):
        rule = "no command of the past is obeyed"

        def late(term, attempt):
            return lambda h: h.workers["node-a"][0].append(
                {"t": 9, "message": "command obeyed", "command": "stop", "term": term, "job": "j-1", "attempt": attempt})
        self.breaks(rule, late("1", "2"), "obeyed stop of term 1, attempt 2 of j-1, having seen term 2")
        self.breaks(rule, late("2", "1"), "attempt 1 of j-1, having seen term 2, attempt 2")

        def attached(h):
            h.workers["node-a"][0].append({"t": 9, "message": "attached", "term": "1"})
        self.breaks(rule, attached, "attached to term 1 after term 2")

    def test_two_ranks_on_a_device(self):
        def early(h):
            h.workers["node-a"][0].pop(3)
        self.breaks("a device has one rank", early, "node-a/0: rank 0 of j-1 started before")

    def test_half_a_result(self):
        rule = "results appear whole or not at all"
        self.breaks(rule, lambda h: h.end["results"]["j-2"].update(present=True), "CANCELLED, and its output is there")
        self.breaks(rule, lambda h: h.end["results"]["j-1"].update(present=False), "SUCCEEDED, and its output is not there")
        self.breaks(rule, lambda h: h.end["files"].append("2"), "2 is a file that no job had made")

    def test_other_bits(self):
        rule = "the same plan gives the same bits"
        self.breaks(rule, lambda h: h.end["results"]["j-1"].update(sha256="bb"), "j-1 has other bits")

        def failed(h):
            h.end["references"][PLAN]["state"] = "JOB_STATE_FAILED"
        self.breaks(rule, failed, "undisturbed run .* ended as JOB_STATE_FAILED")

        def another(h):
            h.end["references"][PLAN]["plan"] = "something else"
        self.breaks(rule, another, "was one of something else")

    def test_a_resumed_result_of_another_plan_has_its_own_bits(self):
        history = good()
        history.jobs["j-1"]["attempts"][-1]["first_layer"] = 3
        history.end["results"]["j-1"] |= {"pinned": False, "sha256": "bb"}
        self.assertEqual(check(history), [])

    def test_a_wrong_result(self):
        self.breaks("results are right", lambda h: h.end["results"]["j-1"].update(judged="hidden_states: err 0.1"), "err 0.1")

    def test_something_is_left(self):
        rule = "nothing is left"
        self.breaks(rule, lambda h: h.end["processes"].append([7, "seqpar-worker executor"]), "process 7 still runs")
        self.breaks(rule, lambda h: h.end["ranks"].append(["node-a", 7]), "executor 7 on node-a")
        self.breaks(rule, lambda h: h.end["staged"].append(".1.seqpar-j-1-1.partial"), "is left beside the outputs")
        self.breaks(rule, lambda h: h.end["nodes"][0].update(state="NODE_STATE_LOST"), "node-a is NODE_STATE_LOST")
        self.breaks(rule, lambda h: h.end["nodes"][0]["devices"][1].update(job="j-1"), "node-a/1 is held by j-1")
        self.breaks(rule, lambda h: h.end["nodes"][0]["devices"][1].update(set_aside="busy"), "set aside: busy")

    def test_a_process_died_by_itself(self):
        rule = "no process dies by itself"
        self.breaks(rule, lambda h: h.driver[5].update(expected=False), "ended by itself: -9")
        self.breaks(rule, lambda h: h.driver[5].update(code=-11), "was to end, but so: -11")
        self.breaks(rule, lambda h: h.end["exit_codes"].update({"node-a": -6}), "node-a was told to stop and ended with -6")

    def test_an_executor_crashed(self):
        def crash(h):
            h.workers["node-a"][0][3]["how"] = "was killed by signal 11 (Segmentation fault)"
        self.breaks("no executor crashes", crash, "signal 11")

    @classmethod
    def tearDownClass(cls):
        names = {rule.__name__.replace("_", " ") for rule in RULES}
        assert cls.broken == names, f"no test breaks: {names - cls.broken}"


class Records(unittest.TestCase):
    def test_json_and_text(self):
        as_json = parse_record('{"time":"2026-11-28T10:00:00.500Z","level":"info","component":"worker",'
                               '"message":"attached","term":"3"}')
        as_text = parse_record('2026-11-28T10:00:00.500Z I worker attached term=3')
        for record in (as_json, as_text):
            self.assertEqual((record["message"], record["term"]), ("attached", "3"))
        self.assertEqual(as_json["t"], as_text["t"])

    def test_what_an_executor_said(self):
        record = parse_record('{"time":"2026-11-28T10:00:00.500Z","level":"info","component":"worker",'
                              '"message":"phase begins phase=execute","job":"j-1","attempt":"2","rank":"0","phase":"shard",'
                              '"from":"executor"}')
        self.assertEqual((record["message"], record["phase"], record["attempt"]), ("phase begins", "execute", "2"))

    def test_what_is_no_record(self):
        for line in ("", "terminate called", "{cut off", '{"a": 1}'):
            self.assertIsNone(parse_record(line))


if __name__ == "__main__":
    unittest.main()
