"""What users say, and what becomes of it: `imagesr feedback signal`, `record`, `pictures`, `forget`."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import closing
from pathlib import Path

from imagesr.cli import SOME_FAILED, Parser, run_subcommand

VARIABLE = "IMAGESR_FEEDBACK"
TARGET, LEAST = 0.7, 20  # the share of votes that are up, and the votes that say something
_DESCRIPTION = "Look after the feedback that `imagesr serve --feedback` takes."
_EXAMPLES = """
  imagesr feedback record DIV2K/DIV2K_train_LR_bicubic/X2 --database sqlite:///feedback.db
  imagesr feedback signal --database sqlite:///feedback.db || echo 'it is time to retrain'
  imagesr feedback pictures queue/ --database sqlite:///feedback.db
  imagesr feedback forget rX9… --database sqlite:///feedback.db
"""
_EPILOG = f"""\
The database is that of the service: sqlite:///FILE or postgresql://…; {VARIABLE} keeps an address with a password from
other users. Pictures that are kept have no HR. They are for evaluation and for people to look at, not for training."""
_Z = 1.96  # standard deviations: an interval of 95 %
_WINDOWS, _WINDOW = 3, 100  # so many groups of so many pictures must differ, one after another


def wilson(up: int, votes: int) -> tuple[float, float]:
    """Return the interval of 95 % of a share, by Wilson (1927); (0, 1) without votes."""
    if not votes:
        return 0.0, 1.0
    share, square = up / votes, _Z * _Z
    middle = (share + square / (2 * votes)) / (1 + square / votes)
    half = _Z / (1 + square / votes) * (share * (1 - share) / votes + square / (4 * votes**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def newest(counts):
    """Return the counts of the newest version of each model; they come with the newest vote first."""
    found = {}
    for count in counts:
        found.setdefault(re.split("[@/]", count.model)[0], count)
    return [*found.values()]


def signal(votes, *, target: float, least: int, now: float | None = None) -> tuple[str, bool, dict[str, float]]:
    """Look whether retraining should be asked for; return the reason, "" for none, whether it is new, and figures.

    A signal stands until it is answered: by `votes.answer`, by votes on a newer version of its model, or, where it was
    for the pictures that come, by a newer record of the training set.
    """
    now = time.time() if now is None else now
    _answer_what_is_answered(votes, now)
    since = votes.answered_at()
    figures, reasons = {}, []
    for count in newest(votes.counts(since)):
        low, high = wilson(count.up, count.votes)
        rates = {"votes": count.votes, "accept_rate": count.up / count.votes, "low": low, "high": high}
        figures = figures or rates  # those of the model that the last vote was on
        if count.votes >= least and high < target:
            told = f"{count.up} of {count.votes} votes on {count.model} are up"
            reasons.append((count.model, f"{told}: at most {high:.0%}, and {target:.0%} are wanted"))
            break
    reasons += [("", text) for text in _drifts(votes, since, figures)]
    new = bool(reasons) and votes.signal(*reasons[0], now)
    standing = votes.open_signal()
    return standing.reason if standing else "", new, figures | {"signal": float(standing is not None)}


def _answer_what_is_answered(votes, now):
    standing = votes.open_signal()
    if not standing:
        return
    if standing.model:
        name = re.split("[@/]", standing.model)[0]
        current = {re.split("[@/]", count.model)[0]: count.model for count in newest(votes.counts())}
        answered = current.get(name, standing.model) != standing.model
    else:
        record = votes.inputs_record()
        answered = record is not None and record[1] > standing.at
    if answered:
        votes.answer(now)


def _drifts(votes, since, figures):
    """Yield a sentence for each property that has differed for so long that it is no chance."""
    from imagesr.serve.inputs import LIMIT, drift

    record, inputs = votes.inputs_record(), votes.inputs(_WINDOWS * _WINDOW, since)
    if record is None or len(inputs) < _WINDOWS * _WINDOW:
        return
    found = [drift(record[0], inputs[at : at + _WINDOW]) for at in range(0, len(inputs), _WINDOW)]
    for name in found[0]:
        least = min(each[name] for each in found)
        figures[f"drift_{name}"] = least
        if least > LIMIT:
            told = f"the {name.replace('_', ' ')} of the last {len(inputs)} pictures is not the training set's"
            yield f"{told}: PSI {least:.2f}, and at most {LIMIT} is wanted"


def ask(url: str, *, target: float = TARGET, least: int = LEAST) -> tuple[str, bool]:
    """Return the reason for retraining, "" for none, and whether it is new; figures go to Prometheus.

    Raises OutputError for a database that does not answer, ValueError for an address that is none, and
    ModuleNotFoundError without a driver.
    """
    from imagesr.textfile import recorded

    votes = _opened(url)
    with closing(votes), recorded("feedback") as figures:
        reason, new, found = signal(votes, target=target, least=least)
        figures |= found
    return reason, new


def _database(options, *, new=False):
    return _opened(_address(options), new=new)


def _address(options):
    if not (url := options.database or os.environ.get(VARIABLE)):
        raise ValueError(f"Expected --database URL, or {VARIABLE}. Received: neither")
    return url


def _opened(url, *, new=False):
    from imagesr.serve.votes import Votes

    if not new and url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise ValueError(f"Expected the database of a service. Received: {url}, which is not there")
    return Votes(url)


def _signal(options):
    if not 0 < options.target <= 1 or options.least < 1:
        raise ValueError(
            f"Expected a target from 0 to 1 and 1 vote or more. Received: {options.target:g}, {options.least}"
        )
    if options.answer:
        print("the signal is answered" if _database(options).answer(time.time()) else "there is no signal")
        return 0
    reason, new = ask(_address(options), target=options.target, least=options.least)
    if new:
        print(f"retrain: {reason}")
        return SOME_FAILED
    print(f"asked for already, and not answered: {reason}" if reason else "no reason to retrain")
    return 0


def _record(options):
    from imagesr.serve.inputs import measure_files, record_of

    text = record_of(measure_files(options.pictures))
    _database(options, new=True).set_inputs_record(text)
    print(f"the record of {json.loads(text)['pictures']} pictures is saved")
    return 0


def _pictures(options):
    from imagesr.files import write_whole

    votes = _database(options)
    options.out.mkdir(parents=True, exist_ok=True)
    told = []
    for request, kind, model, up, words in votes.pictures(time.time()):
        write_whole(options.out / f"{request}.{kind}", votes.picture(request))
        line = {"picture": f"{request}.{kind}", "model": model, "vote": "up" if up else "down", "words": words}
        told.append(json.dumps(line, ensure_ascii=False))
    write_whole(options.out / "votes.jsonl", "".join(f"{line}\n" for line in told))
    print(f"{len(told)} pictures, in {options.out}")
    return 0


def _forget(options):
    votes = _database(options)
    unknown = [request for request in options.ids if not votes.forget(request)]
    for request in unknown:
        print(f"imagesr feedback: Expected the id of a vote. Received: {request}", file=sys.stderr)
    gone = votes.expire(time.time()) if options.expired else 0
    print(f"{len(options.ids) - len(unknown)} forgotten" + f", {gone} pictures had expired" * options.expired)
    return SOME_FAILED if unknown else 0


def _parser():
    parser = Parser(prog="imagesr feedback", description=_DESCRIPTION, examples=_EXAMPLES, epilog=_EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)

    def command(name, run, text):
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.add_argument("--database", metavar="URL", help=f"of the service (default: {VARIABLE})")
        added.set_defaults(run=run)
        return added.add_argument

    text = "ask for retraining where the accept rate or the inputs say so; exit code 1 where it is asked for now"
    add = command("signal", _signal, text)
    text = f"the least share of votes that are up (default: {TARGET})"
    add("--target", type=float, default=TARGET, metavar="0..1", help=text)
    add("--least", type=int, default=LEAST, metavar="N", help=f"votes; fewer say nothing (default: {LEAST})")
    add("--answer", action="store_true", help="take the signal as answered; what came before does not count again")
    add = command("record", _record, "save the figures of the training set, which inputs are compared with")
    add(
        "pictures", nargs="+", type=Path, metavar="PICTURES", help="files and folders of LR, as the network is given it"
    )
    add = command("pictures", _pictures, "write the pictures that users let us keep into a folder, with their votes")
    add("out", type=Path, metavar="OUT", help="the folder")
    add = command("forget", _forget, "remove votes, their words and their pictures")
    add("ids", nargs="*", metavar="ID", help="the ids of requests")
    add("--expired", action="store_true", help="remove pictures whose time is over, too, as the service does")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_subcommand("feedback", _parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
