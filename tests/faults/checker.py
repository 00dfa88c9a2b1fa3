"""What must hold after any run, whatever was broken: read from its history alone.

check(history) returns a list of {"rule", "what"}; none is a pass. Each rule is a function of this file and has a history
in checker_test.py that breaks it.
"""
import re

ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
RULES = []


def rule(function):
    RULES.append(function)
    return function


def check(history):
    return [{"rule": function.__name__.replace("_", " "), "what": what} for function in RULES for what in function(history)]


def reason_of(error):
    for detail in (error or {}).get("details", []):
        if "reason" in detail:
            return detail["reason"]
    return ""


# --- jobs ---


@rule
def everything_settles(history):
    if not history.end.get("settled"):
        live = sorted(j for j, states in history.watched.items() if not states or states[-1]["state"] not in ENDED)
        yield f"not all had ended some time after the last fault: {', '.join(live) or 'a process did not come back'}"


@rule
def every_acknowledged_job_is_there(history):
    listed = history.end.get("listed", {})
    ended = sum(state in ENDED for state in listed.values())
    for record in history.told("acknowledged") if history.end.get("settled") else ():
        # Old ones may be forgotten, once they have ended and where there are as many as are kept.
        forgotten = record["job"] in history.jobs and ended >= history.end["kept_jobs"]
        if record["job"] not in history.jobs or not (record["job"] in listed or forgotten):
            yield f"{record['job']} was acknowledged ({record['request']}) and is unknown"


@rule
def a_request_starts_one_job(history):
    jobs = {}
    for record in history.told("acknowledged"):
        jobs.setdefault(record["request"], set()).add(record["job"])
    for job_id, job in history.jobs.items():
        request = job.get("labels", {}).get("request")
        if request:
            jobs.setdefault(request, set()).add(job_id)
    for request, started in jobs.items():
        if len(started) > 1:
            yield f"{request} started {', '.join(sorted(started))}"


@rule
def every_job_ends_once(history):
    for job_id, job in history.jobs.items():
        later = history.end.get("listed", {}).get(job_id, job["state"])
        if job["state"] not in ENDED:
            yield f"{job_id} is {job['state']} in the end"
        elif later != job["state"]:
            yield f"{job_id} had ended as {job['state']} and is {later}"
    for job_id, states in history.watched.items():
        ends = [job for job in states if job["state"] in ENDED]
        final = history.jobs.get(job_id)
        if len({job["state"] for job in ends}) > 1:
            yield f"{job_id} was seen to end as {' and as '.join(job['state'] for job in ends)}"
        elif ends and states[states.index(ends[0]):] != [s for s in states[states.index(ends[0]):] if s["state"] in ENDED]:
            yield f"{job_id} was seen to go on after its end"
        elif ends and final and (final["state"], final.get("attempt")) != (ends[0]["state"], ends[0].get("attempt")):
            yield f"{job_id} was seen to end as {ends[0]['state']} and is {final['state']}"


@rule
def what_watchers_see_only_grows(history):
    for job_id, states in history.watched.items():
        before = None
        for job in states:
            revision, attempt = int(job.get("revision", 0)), job.get("attempt", 0)
            if before and (revision < before[0] or attempt < before[1]):
                yield f"{job_id}: revision {before[0]}, attempt {before[1]} was followed by {revision}, {attempt}"
                break
            before = (revision, attempt)


@rule
def attempts_are_numbered_once(history):
    for job_id, job in history.jobs.items():
        numbers = [a["attempt"] for a in job.get("attempts", [])]
        if numbers != sorted(set(numbers)):
            yield f"{job_id} has attempts {numbers}"


# Reasons that end a job whatever attempts are left; what of a run has to bring them about.
DISK_FAULTS = ("disk of the data full", "fsync fails, worker", "fsync fails, coordinator")


def explained(history, job):
    """Whether a job may have failed as it did."""
    reason, attempts = reason_of(job["error"]), job.get("attempts", [])
    counted = [a for a in attempts if not a.get("not_counted")]
    if reason == "DEADLINE_EXCEEDED":
        return bool(job.get("deadline"))
    if reason == "STORAGE" and any(f["kind"] in DISK_FAULTS or f["kind"].startswith("failpoint") for f in history.faults()):
        return True
    if reason not in ("RANK_FAILED", "RANK_LOST", "NO_PROGRESS", "PEER_LOST", "BOOTSTRAP_TIMEOUT", "STORAGE", "INTERNAL",
                      "NODE_DRAINED"):  # of a node whose excuses were used up
        return False
    if len(counted) >= job["max_attempts"]:
        return len(counted) == job["max_attempts"]
    return len(counted) >= 3 and "three times the same" in job["error"]["message"]


@rule
def a_failure_has_its_reason(history):
    for job_id, job in history.jobs.items():
        if job["state"] == "JOB_STATE_FAILED" and not explained(history, job):
            yield (f"{job_id} ({job.get('name')}) failed after {len(job.get('attempts', []))} of {job.get('max_attempts')} attempts: "
                   f"{reason_of(job['error'])}: {job['error'].get('message')}")
        if job["state"] == "JOB_STATE_CANCELLED" and not any(r["job"] == job_id for r in history.told("cancel")):
            yield f"{job_id} is cancelled, and nobody asked for it"


# --- commands ---


@rule
def no_command_of_the_past_is_obeyed(history):
    for node, processes in history.workers.items():
        for log in processes:
            term, attempts = 0, {}
            for record in log:
                if record["message"] == "attached":
                    if int(record["term"]) < term:
                        yield f"{node} attached to term {record['term']} after term {term}"
                    term = max(term, int(record["term"]))
                if record["message"] != "command obeyed":
                    continue
                job, attempt, of = record["job"], int(record["attempt"]), int(record["term"])
                if of < term or attempt < attempts.get(job, 0):
                    yield (f"{node} obeyed {record['command']} of term {of}, attempt {attempt} of {job}, having seen term "
                           f"{term}, attempt {attempts.get(job, 0)}")
                term, attempts[job] = max(term, of), max(attempt, attempts.get(job, 0))


def executors(history):
    """[{"node", "job", "attempt", "rank", "device", "begin", "end", "daemon"}]; end: None where no daemon saw it."""
    found = []
    for node, processes in history.workers.items():
        for number, log in enumerate(processes, 1):
            running = {}
            for record in log:
                if record["message"] not in ("rank started", "executor ended"):
                    continue
                key = (record["job"], int(record["attempt"]), int(record["rank"]))
                if record["message"] == "rank started":
                    running[key] = {"node": node, "daemon": number, "job": key[0], "attempt": key[1], "rank": key[2],
                                    "device": record["device"], "begin": record["t"], "end": None}
                    found.append(running[key])
                elif key in running:
                    running.pop(key)["end"] = record["t"]
    return found


@rule
def a_device_has_one_rank(history):
    devices = {}
    for one in executors(history):
        devices.setdefault((one["node"], one["daemon"], one["device"]), []).append(one)
    for (node, _, device), ranks in devices.items():
        for earlier, later in zip(ranks, ranks[1:]):
            if earlier["end"] is None or earlier["end"] > later["begin"]:
                yield (f"{node}/{device}: rank {later['rank']} of {later['job']} started before rank {earlier['rank']} of "
                       f"{earlier['job']} had ended")


# --- results ---


@rule
def results_appear_whole_or_not_at_all(history):
    for job_id, result in history.end.get("results", {}).items():
        state = history.jobs[job_id]["state"]
        if (state == "JOB_STATE_SUCCEEDED") != result["present"]:
            yield f"{job_id} is {state}, and its output is {'there' if result['present'] else 'not there'}"
    for name in history.end.get("files", []):
        yield f"{name} is a file that no job had made when it ended"


@rule
def the_same_plan_gives_the_same_bits(history):
    references = history.end.get("references", {})
    for plan, reference in references.items():
        if reference["state"] != "JOB_STATE_SUCCEEDED" or not reference["present"]:
            yield f"the undisturbed run of {plan} ended as {reference['state']}"
        elif reference.get("plan") != plan:
            yield f"the undisturbed run of {plan} was one of {reference['plan']}"
    for job_id, result in history.end.get("results", {}).items():
        if "plan" not in result or not result["present"]:
            continue
        # Resumed from a checkpoint of another plan: its bits are its own, and the rule below is for it.
        resumed = history.jobs[job_id]["attempts"][-1].get("first_layer", 0) > 0
        if resumed and not result["pinned"]:
            continue
        if references and result["sha256"] != references.get(result["plan"], {}).get("sha256"):
            yield f"{job_id} has other bits than an undisturbed run of {result['plan']}"


@rule
def results_are_right(history):
    for job_id, result in history.end.get("results", {}).items():
        if result.get("judged"):
            yield f"{job_id}: {result['judged']}"


# --- what is left ---


@rule
def nothing_is_left(history):
    end = history.end
    for pid, command in end.get("processes", []):
        yield f"process {pid} still runs: {command}"
    for node, pid in end.get("ranks", []):
        yield f"executor {pid} on {node} still runs"
    for name in end.get("staged", []):
        yield f"{name} is left beside the outputs"
    for node in end.get("nodes", []):
        if node["state"] != "NODE_STATE_READY":
            yield f"{node['name']} is {node['state']}"
        for number, device in enumerate(node.get("devices", [])):
            if device.get("job"):
                yield f"{node['name']}/{number} is held by {device['job']}"
            if device.get("set_aside"):
                yield f"{node['name']}/{number} is set aside: {device['set_aside']}"


@rule
def no_process_dies_by_itself(history):
    for record in history.told("exit"):
        if not record["expected"]:
            yield f"{record['name']} (pid {record['pid']}) ended by itself: {record['code']}"
        elif record["code"] not in (0, 1, -9, -15):  # -15: before it had a handler for SIGTERM
            yield f"{record['name']} (pid {record['pid']}) was to end, but so: {record['code']}"
    for name, code in history.end.get("exit_codes", {}).items():
        if code != 0:
            yield f"{name} was told to stop and ended with {code}"


# Signals of programs that are wrong, not of those that were harmed.
CRASH = re.compile(r"killed by signal (4|6|7|8|11|31) ")


@rule
def no_executor_crashes(history):
    for node, processes in history.workers.items():
        for log in processes:
            for record in log:
                if record["message"] == "executor ended" and CRASH.search(record.get("how", "")):
                    yield f"{node}: rank {record['rank']} of {record['job']}, attempt {record['attempt']} {record['how']}"
