"""llama.cpp's HTTP server through xllamacpp; prints its address as JSON, and ends with its standard input.

PEER/bin/python serve_llamacpp.py MODEL.gguf SLOTS THREADS
"""

import json
import sys

import xllamacpp


def main() -> None:
    settings = xllamacpp.CommonParams()
    settings.model.path, slots, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    settings.n_parallel = slots
    settings.n_threads_http = slots + 4
    settings.n_ctx = 2048 if slots == 1 else 256 * slots
    settings.kv_unified = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.port = 0
    settings.verbosity = -1
    server = xllamacpp.Server(settings)
    print(json.dumps({"ready": True, "url": server.listening_address}), flush=True)
    sys.stdin.read()


main()
