#!/usr/bin/env bash
# Checks and measures this project on a GPU, in about eight minutes and without further input.
#
#     tools/gpu_check.sh [--device cuda] [--minutes 8] [--quick] [--dry_run] [FOLDER]
#
# Every part has a time limit, and a part that fails does not stop the others. FOLDER (default: results/gpu_check) then has
# gpu_check.json, with the exit code and the seconds of every part (124: its time was over, null: no time was left) and all
# measurements, and gpu_check.log, with all output. --dry_run prints the parts, their limits and their commands. --quick uses
# small sizes; with --device cpu it tries the script itself. The last part, the recipe of the demo for a GPU, needs six
# minutes more: pass --minutes 15, otherwise it is not run where fewer than five are left, which is no failure. PYTHON is
# the interpreter (default: python). Exit code 1: a part failed or was left out.

set -u
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python} device=cuda minutes=8 quick="" dry_run="" folder=results/gpu_check

fail() {
    echo "gpu_check.sh: $1; --help lists the options" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit ;;
        --device | --minutes) [ $# -gt 1 ] || fail "$1 needs a value"; declare "${1#--}=$2"; shift ;;
        --quick | --dry_run) declare "${1#--}=yes" ;;
        -*) fail "unknown option $1" ;;
        *) folder=$1 ;;
    esac
    shift
done
[[ $minutes =~ ^[1-9][0-9]*$ ]] || fail "--minutes must be a whole number from 1, not $minutes"

log=$folder/gpu_check.log parts=$folder/parts.txt failed=0

# part NAME SECONDS COMMAND…: runs the command for that time at most
part() {
    local name=$1 limit=$2 left=$((60 * minutes - SECONDS)) begin=$SECONDS code
    shift 2
    if [ -n "$dry_run" ]; then
        local shown="$*"
        printf '%s, %d s at most\n    %s\n' "$name" "$limit" "${shown//"$benchmark"/BENCHMARK}"
        return
    fi
    if [ "$left" -lt 10 ]; then
        code=null
        echo "$name: left out, the $minutes minutes are over" | tee -a "$log"
    else
        printf '\n==== %s\n' "$name" >> "$log"
        timeout -k 5 "$((limit < left ? limit : left))" "$@" >> "$log" 2>&1 < /dev/null
        code=$?
        echo "$name: exit code $code after $((SECONDS - begin)) s" | tee -a "$log"
    fi
    [ "$code" = 0 ] || failed=1
    echo "$name $code $((SECONDS - begin))" >> "$parts"
}

# Benchmarks of one network, the most important first; one process, as its start takes longer than a run.
read -r -d '' benchmark << 'END'
import logging, sys
import eval as command
from tools.launches import overrides

config, device, quick, root, folder, *objects = sys.argv[1:]
names = "circle,ring,square,bar,triangle,star,cross,crescent"
runs = [(p, g, b) for b in (1, 8) for p in ("bf16", "fp32") for g in (True, False)]
codes = []
for count in objects:
    for precision, graphs, batch in runs[:: 3 if quick else 1]:
        line = [f"--device={device}", f"--precision={precision}", f"--eval_batch_size={batch}", "--benchmark"]
        line += [f"--set=dataset.root={root}", f"--max_videos={1 if quick else 3}", "--num_workers=2"]
        if config == "demo":
            line += ["--trained_model=weights/STMask_demo.pth"]
        else:
            line += [f"--config={config}", "--trained_model=random", f"--set=dataset.class_names={names}"]
            line += [f"--set={key}" for key in overrides(int(count))]
        line += [] if graphs else ["--no_graphs"]
        line += ["--set=input.size_hw=64,96"] if quick else []
        line += ["--baseline"] if (precision, graphs, batch) == ("fp32", False, 1) else []
        name = "-".join([config, f"{count}_objects", precision, "graphs" if graphs else "no_graphs", f"batch_{batch}"])
        print(f"---- {name}", flush=True)
        try:
            codes.append(command.main([*line, f"--mask_det_file={folder}/{name}.json"]))
        except Exception:
            logging.exception("%s failed", name)
            codes.append(1)
sys.exit(max(codes))
END

# One JSON file of all parts and measurements.
read -r -d '' collect << 'END'
import json, sys
from pathlib import Path

folder, device = Path(sys.argv[1]), sys.argv[2]
parts = {}
for line in (folder / "parts.txt").read_text().splitlines():
    name, code, seconds = line.split()
    parts[name] = {"exit_code": json.loads(code), "seconds": int(seconds)}
measured = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("measured/*.json"))}
content = {"device": device, "parts": parts, "measured": measured}
(folder / "gpu_check.json").write_text(json.dumps(content, indent=1) + "\n")
for stage in measured.get("recipe", {}).get("stages", ()):
    print("{name}: {minutes:.1f} minutes, {scores}".format(**stage))
for name, found in measured.items():
    if "runs" in found:
        run = found["runs"]["this run"]
        network = run["stages"].get("network", {}).get("median_ms", float("nan"))
        wall = run.get("wall_ms", {}).get("median", float("nan"))
        print(f"{name.removesuffix('_benchmark'):75} {wall:8.2f} ms a frame, the network {network:8.2f}")
END

if [ -z "$dry_run" ]; then
    rm -rf "$folder/runs" "$folder/measured"
    mkdir -p "$folder/runs" "$folder/measured" || exit
    : > "$log" > "$parts"
fi
data=$folder/ShapesVIS step=(--batch_size=8 --rounds=12 --precision=bf16 --num_workers=14)
recipe=(recipes/demo_gpu.toml "--device=$device" "--results=$folder/recipe" "--json=$folder/measured/recipe.json")
if [ -n "$quick" ]; then
    step=(--batch_size=1 --rounds=1 --precision=fp32 --num_workers=1 --set=input.size_hw=64,96)
    recipe+=(--dry_run)
fi

part data 60 "$python" -m data.synthetic --root "$data" --train_videos 8 --valid_videos 3
part tests 100 "$python" -m pytest -q -p no:cacheprovider tests/test_cuda.py
part parity 75 "$python" -m tools.parity "$device"
for config in demo STMask_plus_resnet50_ada_config STMask_plus_resnet50_config STMask_plus_base_ada_config; do
    objects=(5 30)
    [ "$config" != demo ] || objects=(its)
    [ -z "$quick" ] || objects=("${objects[0]}")
    part "speed_$config" 75 "$python" -c "$benchmark" "$config" "$device" "$quick" "$data" "$folder/runs" "${objects[@]}"
done
part kernels 40 "$python" -m tools.kernel_speed --device "$device" --bf16 --rounds 10 --output "$folder/measured/kernels.json"
part training 60 "$python" -m tools.step_speed --config=STMask_plus_resnet50_ada_config --device "$device" \
    --train_dataset ShapesVIS --set=train.pretrained= "--set=dataset.root=$data" "${step[@]}" \
    --output "$folder/measured/training.json"
if [ -n "$dry_run" ] || [ $((60 * minutes - SECONDS)) -ge 300 ]; then
    part recipe 420 "$python" -m tools.recipe "${recipe[@]}"
else
    echo "recipe: not run, fewer than 5 of the $minutes minutes are left" | tee -a "$log"
fi
[ -z "$dry_run" ] || exit 0

cp "$folder"/runs/*_benchmark.json "$folder/measured" 2> /dev/null
"$python" -c "$collect" "$folder" "$device" | tee -a "$log"
rm -rf "$parts" "$folder/measured"
echo "written: $folder/gpu_check.json, $log"
exit "$failed"
