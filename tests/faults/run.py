"""One run: a load, a schedule of faults over it, and everything that a checker needs to judge it afterwards."""
import hashlib
import json
import random
import subprocess
import time

from cluster import COORDINATOR, NODES, FaultCluster, processes_of, scaled
from faults import KINDS, schedule, usable
from load import KINDS as JOBS
from load import Load
from plans import is_pinned, plan_of, pinned_to

TICK_SECONDS = 0.05


class Run:
    def __init__(self, folder, options, say):
        self.folder, self.options, self.say = folder, options, say
        self.cluster = FaultCluster(folder, options.isolated, options.disk)
        # One stream of draws for each: what is drawn for the faults does not depend on how many jobs there were.
        self.plan = schedule(random.Random(f"faults {options.seed}"), options.seconds,
                             usable(options.isolated, options.disk))
        self.load = Load(self.cluster, random.Random(f"load {options.seed}"), options.live)
        self.active = []  # (when it ends, fault)
        self.down = []
        self.injected = 0

    def run(self):
        """True where the run came to its end; what came of it is in the folder."""
        self.cluster.tell("run", seed=self.options.seed, seconds=self.options.seconds, isolated=self.options.isolated)
        self.cluster.start()
        self.say(f"{len(NODES)} workers are ready; {len(self.plan)} faults are planned")
        self.disturb()
        settled = self.settle()
        references = self.references() if settled else {}
        self.collect(settled, references)
        return settled

    # --- faults ---

    def disturb(self):
        begin = time.monotonic()
        self.cluster.tell("faults begin")
        waiting = list(self.plan)
        next_line = begin + 10
        while time.monotonic() < begin + self.options.seconds:
            now = time.monotonic() - begin
            while waiting and waiting[0].at <= now:
                self.inject(waiting.pop(0))
            self.tick()
            if time.monotonic() >= next_line:
                next_line += 10
                self.say(f"{now:5.0f} s: {self.injected} faults, {self.load.ended} of {self.load.submitted} jobs ended, "
                         f"now: {', '.join(f.planned.kind for _, f in self.active) or 'nothing broken'}")
        self.cluster.tell("faults end")

    def inject(self, planned):
        fault = KINDS[planned.kind](self.cluster, planned)
        detail = fault.begin()
        if detail is None:
            self.cluster.tell("nothing to harm", fault=planned.number, kind=planned.kind)
            return
        self.injected += 1
        self.cluster.tell("fault begins", fault=planned.number, kind=planned.kind, length=planned.length, **detail)
        self.active.append((time.monotonic() + planned.length, fault))

    def tick(self):
        now = time.monotonic()
        for entry in [e for e in self.active if e[0] <= now]:
            self.active.remove(entry)
            entry[1].end()
            self.cluster.tell("fault ends", fault=entry[1].planned.number, kind=entry[1].planned.kind)
        for member, _ in self.cluster.reap():
            if not member.ending:
                member.again = True  # the checker says what it thinks of that
            self.down.append(member)
        for member in [m for m in self.down if m.again]:
            self.down.remove(member)
            self.cluster.spawn(member.name)
        self.load.tick()
        time.sleep(TICK_SECONDS)

    # --- the end ---

    def until(self, condition, seconds):
        end = time.monotonic() + scaled(seconds)
        while not condition():
            if time.monotonic() > end:
                return False
            self.tick()
        return True

    def settle(self):
        """Takes all faults away and waits, bounded, until every job has ended by itself and nothing is left."""
        for _, fault in self.active:
            fault.end()
            self.cluster.tell("fault ends", fault=fault.planned.number, kind=fault.planned.kind)
        self.active.clear()
        self.load.open = False
        self.say(f"all faults are over; {len(self.load.following)} jobs are to end by themselves")

        def whole():
            return not self.down and all(name in self.cluster.members for name in (COORDINATOR, *NODES))
        settled = self.until(lambda: whole() and self.load.settled(), self.options.settle)
        for name in NODES if settled else ():
            settled = settled and self.until(lambda node=name: self.cluster.node_states().get(node) == "READY", 60)
        self.until(lambda: not self.cluster.ranks() and not self.cluster.staged(), 30)
        self.cluster.tell("settled", settled=settled)
        return settled

    def references(self):
        """{(kind of job, plan): undisturbed result} of every plan that a job came through with."""
        wanted = {}
        for job in self.listed():
            if job["state"] != "JOB_STATE_SUCCEEDED" or not job.get("output"):
                continue
            whole = self.cluster.get(job["id"])
            wanted.setdefault(plan_of(whole), (whole["name"], whole["report"]))
        self.say(f"{len(wanted)} plans are run again, undisturbed")
        found, running = {}, {}
        for number, (plan, (kind, report)) in enumerate(wanted.items()):
            spec = pinned_to(JOBS[kind][1], report)
            output = f"reference-{number}.safetensors"
            path = self.cluster.write_job(output, **spec, name=kind, output={"file": output, "overwrite": True})
            running[plan] = self.cluster.submit(path)
        for plan, job in running.items():
            done = self.cluster.wait_ended(job, 120)
            found[plan] = {"job": job, "state": done["state"], "plan": plan_of(done) if done.get("report") else "",
                           **self.result(done)}
        return found

    def result(self, job):
        """What stands under the name of a job's output."""
        path = self.cluster.data / job["output"]["file"]
        if not path.exists():
            return {"present": False}
        return {"present": True, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def judge(self, job):
        """By the rule of docs/formulas.md; None where there is no judge."""
        if self.options.judge is None:
            return None
        spec = self.folder / "judged.json"
        fields = ("config", "weights", "input", "mask", "dtype", "pass", "grad_output")
        spec.write_text(json.dumps({k: job[k] for k in fields if k in job} | {"output": job["output"]}))
        done = subprocess.run([self.options.judge, spec, self.cluster.data / job["output"]["file"]], capture_output=True,
                              text=True)
        return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"

    def listed(self):
        return self.cluster.cli("list", "--limit", 1000000).get("jobs", [])

    def collect(self, settled, references):
        jobs = {job["id"]: self.cluster.get(job["id"]) for job in self.listed()} if settled else {}
        results = {}
        for job_id, job in jobs.items():
            if not job.get("output"):
                continue
            results[job_id] = self.result(job)
            if job["state"] == "JOB_STATE_SUCCEEDED":
                results[job_id]["plan"] = plan_of(job)
                reference = references.get(plan_of(job), {})
                same = results[job_id].get("sha256") == reference.get("sha256")
                results[job_id]["pinned"] = is_pinned(job)
                # What has other bits, and what the others are compared with, is judged by itself.
                if not same or job_id == reference.get("job"):
                    results[job_id]["judged"] = self.judge(job)
        own = {r["job"] for r in references.values()}
        end = {"settled": settled, "results": results, "references": {k: v for k, v in references.items()},
               "own_jobs": sorted(own), "staged": self.cluster.staged(), "ranks": [list(r) for r in self.cluster.ranks()],
               "nodes": (self.cluster.cli("nodes", check=False) or {}).get("nodes", []),
               "exit_codes": self.cluster.stop()}
        time.sleep(TICK_SECONDS)
        end["processes"] = processes_of(self.cluster.dir)
        (self.folder / "jobs.json").write_text(json.dumps(jobs))
        (self.folder / "end.json").write_text(json.dumps(end))
