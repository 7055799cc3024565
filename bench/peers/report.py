"""The table, and the same as JSON."""

import statistics

from engines import BEST_PEER, OURS


# What stands for many calls. On a machine that does other work too, the least is nearest to what an idle one would show.
STATISTICS = {"median": statistics.median, "min": min}


def typical(result, workload, statistic):
    """Seconds of a call, by a name of STATISTICS; None if there was none."""
    seconds = result.seconds.get(workload.name)
    return STATISTICS[statistic](seconds) if seconds else None


def ratio(result, other, workload, statistic):
    """Time of `result` divided by time of `other`; None where one has none."""
    if other is None:
        return None
    mine, its = typical(result, workload, statistic), typical(other, workload, statistic)
    return None if mine is None or its is None else mine / its


def cell(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def table(results, workloads, statistic):
    """Rows: engines. For each workload: milliseconds (fixed shapes) or texts a second, then the ratio of times to the best peer and to fewbit."""
    by_name = {result.engine.name: result for result in results}
    peer, ours = by_name.get(BEST_PEER), by_name.get(OURS)
    top, head = ["", ""], ["engine", "cosine"]
    for workload in workloads:
        top += [workload.name, "", ""]
        head += ["ms" if workload.fixed else "texts/s", "/ov8", "/fb8"]
    rows = []
    for result in results:
        row = [result.engine.name, cell(result.cosine, 5)]
        for workload in workloads:
            seconds = typical(result, workload, statistic)
            shown = None if seconds is None else (1000 * seconds if workload.fixed else workload.texts / seconds)
            row += [cell(shown, 2 if workload.fixed else 0), cell(ratio(result, peer, workload, statistic), 2), cell(ratio(result, ours, workload, statistic), 2)]
        rows.append(row)
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    line = lambda row: "  ".join(text.ljust(width) if column == 0 else text.rjust(width) for column, (text, width) in enumerate(zip(row, widths))).rstrip()
    titles = [" " * (widths[0] + 2 + widths[1])]
    for index, workload in enumerate(workloads):
        width = sum(widths[2 + 3 * index : 5 + 3 * index]) + 4
        titles.append(workload.name.rjust(width))
    lines = ["  ".join(titles), line(head), *map(line, rows)]
    lines.append(f"/ov8, /fb8: time divided by that of {BEST_PEER}, of {OURS}; above 1 is slower than it. cosine: mean, to torch-f32.")
    for result in results:
        if result.too_slow:
            workload, times = result.too_slow
            note = f"TOO SLOW {result.engine.name}: {times:.0f} times as long as the fastest at {workload}"
            lines.append(note + (f"; left out of {', '.join(result.left_out)}" if result.left_out else ""))
    lines += [f"FAILED {result.engine.name}: {result.failure}" for result in results if result.failure]
    return "\n".join(lines)


def as_json(results, workloads, settings):
    """Everything that the table is made from, every single time included."""
    return {
        "settings": settings,
        "workloads": [{"name": workload.name, "texts": workload.texts, "tokens": workload.tokens, "batches": len(workload.batches)} for workload in workloads],
        "engines": [
            {
                "name": result.engine.name,
                "version": result.version,
                "precision": result.engine.precision,
                "mean_cosine": result.cosine,
                "failure": result.failure,
                "too_slow": result.too_slow and {"workload": result.too_slow[0], "times_the_fastest": result.too_slow[1], "left_out_of": result.left_out},
                **{f"{name}_seconds": {workload.name: typical(result, workload, name) for workload in workloads} for name in STATISTICS},
                "seconds": result.seconds,
            }
            for result in results
        ],
    }
