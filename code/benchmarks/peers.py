"""
Run a transcriber on a list of files, in the transcriber's Python environment.

``python code/benchmarks/peers.py SYSTEM < JOB`` is started by ``transcribers.py``; only
`ours` imports anything of this project. The job is JSON: ``files``, a list of paths;
``settings``, a list of thresholds ``{"onset": 0.5, "frame": 0.3}``, where an empty one
stands for the transcriber's defaults; ``threads``, the number allowed; and ``weights``,
for ours. A line of JSON is printed for each file as soon as it is done:
``notes``, for each of the settings a list of ``[start, end, pitch, program]``, in
seconds, MIDI numbers and General MIDI programs (0 if instruments are not predicted);
``seconds`` and ``processor_seconds`` of the run; and ``peak_bytes`` of memory so far.
"""

import json
import os
import sys
import time
from functools import partial


def ours(job):
    """Return the two steps of ours; the first does everything, with its thresholds."""
    from jtm.transcriber.transcribe import transcribe

    predict = partial(transcribe, weights=job["weights"])
    predict([0.0], 16000)  # loads the network, which the time of a file leaves out

    def decode(transcription):
        return transcription.notes[["start", "end", "pitch", "program"]].tolist()

    return predict, decode


def basic_pitch(job):
    """Return the two steps of Basic Pitch, without writing MIDI files."""
    import onnxruntime
    from basic_pitch import ICASSP_2022_MODEL_PATH, inference, note_creation

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    inference.ort.InferenceSession = partial(
        onnxruntime.InferenceSession, sess_options=options
    )
    network = inference.Model(ICASSP_2022_MODEL_PATH)

    def predict(path):
        return inference.run_inference(path, network)

    def decode(output, onset=0.5, frame=0.3, shortest=11):  # frames, 128 ms
        rolls = output["note"], output["onset"]
        notes = note_creation.output_to_notes_polyphonic(
            *rolls,
            onset,
            frame,
            shortest,
            infer_onsets=True,
            max_freq=None,
            min_freq=None,
        )
        times = note_creation.model_frames_to_time(len(rolls[0]))
        return [(times[start], times[end], pitch, 0) for start, end, pitch, _ in notes]

    return predict, decode


def harmonica(job, size):
    """Return the two steps of harmonica in one of its sizes."""
    import torch
    from harmonica import Harmonica
    from harmonica.decoding import decode as to_notes

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # for its LSTM
        torch.autocast = partial(torch.autocast, enabled=False)
    model = Harmonica(size, device="cpu")

    def decode(output, onset=model.onset_threshold, frame=model.frame_threshold):
        rolls = output["onset"], output["sustain"]
        notes = to_notes(
            *rolls, model.frames_per_second, onset, frame, output.get("velocity")
        )
        parts = notes.onsets, notes.offsets, notes.pitches
        return [(*each, 0) for each in zip(*(p.tolist() for p in parts), strict=True)]

    return model.activations, decode


SYSTEMS = {
    "jtm": ours,
    "basic-pitch": basic_pitch,
} | {
    f"harmonica-{size}": partial(harmonica, size=size)
    for size in ("nano", "small", "medium")
}
"""Transcribers by name: each returns a function to predict and one to decode."""


def peak_bytes():
    """Read the peak of resident memory; getrusage would include the parent's."""
    with open("/proc/self/status") as status:
        return 1024 * int(status.read().split("VmHWM:")[1].split()[0])


def main():
    """Print the notes of each file of a job to the standard output."""
    job = json.load(sys.stdin)
    # Output of libraries goes to the standard error instead.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    predict, decode = SYSTEMS[sys.argv[1]](job)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(job["threads"])
    for path in job["files"]:
        wall, processor = time.perf_counter(), time.process_time()
        output = predict(path)
        notes = [decode(output, **setting) for setting in job["settings"]]
        result = {
            "notes": [[[float(x) for x in note] for note in each] for each in notes],
            "seconds": time.perf_counter() - wall,
            "processor_seconds": time.process_time() - processor,
            "peak_bytes": peak_bytes(),
        }
        print(json.dumps(result), file=results, flush=True)


if __name__ == "__main__":
    main()
