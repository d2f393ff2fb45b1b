"""Evaluate a model on a data set by a protocol; here on the bundled clip, which has ground truth.

python examples/06_benchmark.py
"""

from pathlib import Path

from dyn3r.assets.demo import demo_clip_folder
from dyn3r.evaluation.benchmark_run import BenchmarkSettings, protocol_of, run_benchmark
from dyn3r.evaluation.benchmark_table import sequence_table

# a data set of your own is a folder of truth folders (docs/metrics.md); `easi3r/davis-16`,
# `monst3r/tum` and other protocols read published data sets (docs/benchmark.md)
settings = BenchmarkSettings(
    protocol="dyn3r/folder", root=demo_clip_folder(), output=Path("results"), num_frames=4
)
results = []
for result in run_benchmark(settings, resume=True):
    print(result.sequence, result.status, result.metrics)
    results.append(result)
print(sequence_table(protocol_of(settings), results, shortened=True))
