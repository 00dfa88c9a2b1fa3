"""One run: a load, a schedule of faults over it, and everything that a checker needs to judge it afterwards."""
import hashlib
import json
import pathlib
import random
import subprocess
import time

import failpoints
from cluster import COORDINATOR, KEEP_JOBS, NODES, FaultCluster, processes_of, scaled
from faults import KINDS, schedule, usable
from load import KINDS as JOBS
from load import INPUT_FILE, Load, write_input
from plans import is_pinned, plan_of, pinned_to

TICK_SECONDS = 0.05
SEEN_SECONDS = 2.0  # so long after its end a fault still explains what is seen


class Run:
    def __init__(self, folder, options, say):
        self.folder, self.options, self.say = folder, options, say
        self.cluster = FaultCluster(folder, options.isolated, options.disk)
        # One stream of draws for each: what is drawn for the faults does not depend on how many jobs there were.
        kinds = [kind for kind in usable(options.isolated, options.disk) if not options.only or kind in options.only]
        self.plan = schedule(random.Random(f"faults {options.seed}"), options.seconds, kinds, options.alone)
        points = [] if options.alone or options.only else failpoints.table()
        if points:
            self.cluster.failpoints = self.folder / "failpoints"
        rng = random.Random(f"failpoints {options.seed}")
        turns = failpoints.turns(rng, options.seconds)
        self.failpoints = failpoints.Failpoints(self.cluster, rng, turns, points, options.min_hits) if points else None
        self.points = [point["name"] for point in points]
        self.load = Load(self.cluster, random.Random(f"load {options.seed}"), options.live, self.job_ended)
        self.active = []  # (when it ends, fault)
        self.over = []  # (when it ended, fault), for a while
        self.down = []  # members that have ended
        self.injected = 0
        self.jobs = {}  # job: as the API shows it once it has ended
        self.results = {}  # job: what stands under its output's name
        self.kept = {}  # (plan, bits): the job whose file is kept

    def run(self):
        """What came of it is in the folder."""
        self.cluster.tell("run", seed=self.options.seed, seconds=self.options.seconds, isolated=self.options.isolated)
        write_input(self.cluster.data / INPUT_FILE)
        self.cluster.start()
        self.say(f"{len(NODES)} workers are ready; {len(self.plan)} faults are planned, {len(self.points)} failpoints known")
        self.disturb()
        self.collect(self.settle())

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
            self.tick(now)
            if time.monotonic() >= next_line:
                next_line += 10
                hits = len(self.failpoints.hits) if self.failpoints else 0
                self.say(f"{now:5.0f} s: {self.injected + hits} faults, {self.load.ended} of {self.load.submitted} jobs ended, "
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

    def tick(self, at=None):
        """`at`: seconds since faults began; None: no more begin."""
        now = time.monotonic()
        if self.failpoints:
            self.failpoints.tick(at)
        for entry in [e for e in self.active if e[0] <= now]:
            self.active.remove(entry)
            entry[1].end()
            self.over.append((now, entry[1]))
            self.cluster.tell("fault ends", fault=entry[1].planned.number, kind=entry[1].planned.kind)
        for member in self.cluster.reap(self.may_end):
            if not member.ending:
                member.again = True  # the checker says what it thinks of that
            self.down.append(member)
        for member in [m for m in self.down if m.again]:
            self.down.remove(member)
            self.cluster.spawn(member.name)
        self.load.tick()
        time.sleep(TICK_SECONDS)

    def may_end(self, member):
        """Whether something explains that this one, which nobody ended, did."""
        self.over = [(at, fault) for at, fault in self.over if time.monotonic() - at < scaled(SEEN_SECONDS)]
        return (self.failpoints and self.failpoints.may_end(member.pid)) or any(
            fault.may_end(member) for _, fault in self.active + self.over)

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
        self.over += [(time.monotonic(), fault) for _, fault in self.active]
        self.active.clear()
        self.load.open = False
        self.undrained = {node: None for node in NODES}  # node: the client that takes its drains back
        self.say(f"all faults are over; {len(self.load.following)} jobs are to end by themselves")

        def whole():
            return not self.down and all(name in self.cluster.members for name in (COORDINATOR, *NODES))
        settled = self.until(lambda: self.undrain() and whole() and self.load.settled(), self.options.settle)
        for name in NODES if settled else ():
            settled = settled and self.until(lambda node=name: self.cluster.node_states().get(node) == "READY", 60)
        self.cluster.tell("settled", settled=settled)
        return settled

    def undrain(self):
        """Whether no node is drained any more: an undo may have been lost with its coordinator."""
        for node, client in list(self.undrained.items()):
            if client is None:
                self.undrained[node] = self.cluster.start_client("--timeout", 5, "drain", node, "--undo")
            elif client.poll() is not None:
                client.communicate()
                self.undrained[node] = None
                if client.returncode == 0:
                    del self.undrained[node]
        return not self.undrained

    # --- results ---

    def job_ended(self, job):
        """Reads what it left, and keeps one file of each: the same plan, the same bits."""
        self.jobs[job["id"]] = job
        if not job.get("output"):
            return
        path = self.cluster.data / job["output"]["file"]
        result = self.results[job["id"]] = {"present": path.exists()}
        if not path.exists():
            return
        result["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if job["state"] != "JOB_STATE_SUCCEEDED":
            return
        result |= {"plan": plan_of(job), "pinned": is_pinned(job)}
        if self.kept.setdefault((result["plan"], result["sha256"]), job["id"]) != job["id"]:
            path.unlink()

    def references(self):
        """{plan: undisturbed result} of every plan that a job came through with."""
        wanted = {}
        for job_id in self.kept.values():
            wanted.setdefault(self.results[job_id]["plan"], self.jobs[job_id])
        self.say(f"{len(wanted)} plans are run again, undisturbed")
        found, running = {}, {}
        for number, (plan, job) in enumerate(wanted.items()):
            name = f"reference-{number}.safetensors"
            spec = pinned_to(JOBS[job["name"]][1], job["report"])
            path = self.folder / "submits" / f"{name}.json"
            path.write_text(json.dumps({**spec, "name": job["name"], "output": {**spec.get("output", {}), "file": name}}))
            running[plan] = self.cluster.submit(path)
        for plan, job_id in running.items():
            job = self.cluster.wait_ended(job_id, 120)
            self.job_ended(job)
            found[plan] = {"job": job_id, "state": job["state"], **self.results[job_id]}
        return found

    def judge(self):
        """By the rule of docs/formulas.md: one of each plan's results, and all that differ."""
        for job_id in self.kept.values() if self.options.judge else ():
            job = self.jobs[job_id]
            spec = self.folder / "judged.json"
            fields = ("config", "weights", "input", "mask", "dtype", "pass", "grad_output", "output")
            spec.write_text(json.dumps({k: job[k] for k in fields if k in job}))
            done = subprocess.run([self.options.judge, spec, self.cluster.data / job["output"]["file"]],
                                  capture_output=True, text=True)
            if done.returncode != 0:
                said = (done.stdout + done.stderr).strip()
                self.results[job_id]["judged"] = said or f"the judge ended with {done.returncode}"

    def collect(self, settled):
        references = self.references() if settled else {}
        nodes = (self.cluster.cli("nodes", check=False) or {}).get("nodes", [])
        listed = (self.cluster.cli("list", "--limit", 1000000, check=False) or {}).get("jobs", [])
        # Its last files go after a job's end.
        self.until(lambda: not self.cluster.ranks() and not self.cluster.staged(), 30)
        end = {"settled": settled, "failpoints": self.points, "hits": self.failpoints.hits if self.failpoints else [],
               "kept_jobs": KEEP_JOBS, "results": self.results, "references": references, "nodes": nodes,
               "own_jobs": sorted(r["job"] for r in references.values()), "staged": self.cluster.staged(),
               "ranks": self.cluster.ranks(), "listed": {job["id"]: job["state"] for job in listed},
               "exit_codes": self.cluster.stop(), "processes": processes_of(self.cluster.dir)}
        kept = {pathlib.Path(self.jobs[job_id]["output"]["file"]).name for job_id in self.kept.values()}
        end["files"] = sorted({p.name for p in self.cluster.data.iterdir()} - kept - set(end["staged"]) - {INPUT_FILE})
        self.say(f"{len(self.kept)} results are judged")
        self.judge()
        (self.folder / "jobs.json").write_text(json.dumps(self.jobs))
        (self.folder / "end.json").write_text(json.dumps(end))
