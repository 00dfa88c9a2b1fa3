"""What a run leaves to be judged: records of the driver (history.jsonl), structured logs of the processes, events of
WatchJob, jobs as they ended. One folder; everything in it is JSON lines, with times in seconds since the epoch.

    history.jsonl        what the driver did and saw: {"t", "what", ...}
    logs/NAME.N.log      of the N-th process of that name
    watch/JOB.jsonl      the job at each of its changes; {"follows": true} where another client goes on
    jobs.json            {job: as the API shows it in the end}
    end.json             what was left when everything had settled
"""
import dataclasses
import datetime
import json
import pathlib
import re


def seconds_of(stamp):
    """Of a log's time, in seconds since the epoch."""
    moment = datetime.datetime.fromisoformat(stamp.rstrip("Z"))
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


TEXT_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


def parse_record(line):
    """{"t", "level", "component", "message", fields...} of a line of a log, JSON or text; None where it is no record."""
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except ValueError:
            return None
        if "time" not in record:
            return None
        record["t"] = seconds_of(record.pop("time"))
    else:
        words = line.split(" ", 3)
        if len(words) < 4 or not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", words[0]):
            return None
        record = {"t": seconds_of(words[0]), "level": words[1], "component": words[2]}
        fields = TEXT_FIELD.search(words[3])
        record["message"] = words[3][:fields.start()].rstrip() if fields else words[3].rstrip()
        for key, value in TEXT_FIELD.findall(words[3]):
            record.setdefault(key, json.loads(value) if value.startswith('"') else value)
    if record.get("from") == "executor":
        # A daemon's record of what its executor printed: that one's own fields are still in its text.
        for key, value in TEXT_FIELD.findall(record["message"]):
            record[key] = value.strip('"')
        record["message"] = TEXT_FIELD.sub("", record["message"]).strip()
    return record


def read_log(path):
    records = (parse_record(line) for line in pathlib.Path(path).read_text(errors="replace").splitlines())
    return [r for r in records if r is not None]


def read_lines(path):
    """Of JSON; a last line that was cut off is left out."""
    found = []
    for line in pathlib.Path(path).read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


@dataclasses.dataclass
class History:
    driver: list = dataclasses.field(default_factory=list)
    coordinators: list = dataclasses.field(default_factory=list)  # a list of records for each process, in order
    workers: dict = dataclasses.field(default_factory=dict)  # node: the same
    watched: dict = dataclasses.field(default_factory=dict)  # job: [job at each change]
    jobs: dict = dataclasses.field(default_factory=dict)  # job: as it ended
    end: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, folder):
        folder = pathlib.Path(folder)
        history = cls(driver=read_lines(folder / "history.jsonl"))
        for path in sorted((folder / "logs").glob("*.log"), key=lambda p: int(p.name.split(".")[-2])):
            name = path.name.split(".")[0]
            if name == "coordinator":
                history.coordinators.append(read_log(path))
            else:
                history.workers.setdefault(name, []).append(read_log(path))
        for path in (folder / "watch").glob("*.jsonl"):
            # Another client goes on where one had ended.
            states = [state for state in read_lines(path) if "follows" not in state]
            if states:
                history.watched[path.stem] = states
        history.jobs = json.loads((folder / "jobs.json").read_text())
        history.end = json.loads((folder / "end.json").read_text())
        return history

    def told(self, what):
        """The driver's records of one kind, in order."""
        return [r for r in self.driver if r["what"] == what]

    def faults(self):
        """[{"fault", "kind", "begin", "end", ...}]: those that harmed something."""
        begun = {r["fault"]: {**r, "begin": r["t"], "end": float("inf")} for r in self.told("fault begins")}
        for record in self.told("fault ends"):
            if record["fault"] in begun:
                begun[record["fault"]]["end"] = record["t"]
        return sorted(begun.values(), key=lambda f: f["begin"])
