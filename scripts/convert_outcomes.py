#!/usr/bin/env python3
"""Makes a table for `tieline route evaluate` of per-model result files (one JSON object a line).

Written for RouterArena's cached_results (github.com/RouteWorks/RouterArena, Apache-2.0; read at commit
4714a9ad73e897a1241e73a86c9297fed2e871d8). Each line has global_index, question and evaluation_result with
score (0 to 1) and inference_cost (US dollars). The group is the data set's name: global_index without its number.

    python3 scripts/convert_outcomes.py claude-3-haiku-20240307.jsonl gemini-2.0-flash-001.jsonl > outcomes.csv

--no-prompt leaves the prompts out. Some of RouterArena's prompts come from data sets with licences of their own,
so a table with prompts is for your own machine.
"""

import argparse
import csv
import json
import pathlib
import sys


def outcomes(path):
    """Rows of one model by prompt id; answers without a score are left out."""
    rows = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            result = row.get("evaluation_result") or {}
            if result.get("score") is not None:
                rows[row["global_index"]] = (row["question"], result["score"], result.get("inference_cost"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="one file for each model, named MODEL.jsonl")
    parser.add_argument("--no-prompt", action="store_true", help="leave the prompts out")
    arguments = parser.parse_args()
    models = {pathlib.Path(path).stem: outcomes(path) for path in arguments.files}
    prompts = {}
    for rows in models.values():
        prompts.update({key: row[0] for key, row in rows.items()})
    columns = ["id", "group"] + ([] if arguments.no_prompt else ["prompt"])
    for model in models:
        columns += [f"{model}.correct", f"{model}.cost"]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for key in sorted(prompts):
        row = [key, key.rpartition("_")[0]] + ([] if arguments.no_prompt else [prompts[key]])
        for rows in models.values():
            _, score, cost = rows.get(key, (None, None, None))
            row += ["" if score is None else round(min(max(float(score), 0.0), 1.0), 4), "" if cost is None else cost]
        writer.writerow(row)


if __name__ == "__main__":
    main()
