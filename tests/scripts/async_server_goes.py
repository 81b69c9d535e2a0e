"""An asynchronous training with made-up turns whose server, which only the watch needs, goes away. It prints when."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scripted_sampler import ThreadTrainer, ThreadWorker, build_async, right_by_chance, without_gpu
from transformers import TrainerCallback

from rlvr_trl.async_trainer.prompt_worker import PromptWorker
from rlvr_trl.data import make_maze_dataset


class Well(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


class Watched(ThreadWorker):
    watch_server = PromptWorker.watch_server


class WatchedTrainer(ThreadTrainer):
    _worker_class = Watched


class Ends(TrainerCallback):
    """Ends the server after a step."""

    def __init__(self, server):
        self.server = server

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.server.shutdown()
            self.server.server_close()
            print(f"gone at {time.time()}", flush=True)


def main():
    folder, model = sys.argv[1:]
    without_gpu()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Well)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    print(url, flush=True)
    trainer = build_async(
        *(model, right_by_chance, make_maze_dataset(24, prompt_style="bare", seed=5), folder, WatchedTrainer),
        **{"max_steps": 1000, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2},
        **{"vllm_server_base_url": url, "vllm_server_timeout": 10.0},  # one late answer is no failure
    )
    trainer.add_callback(Ends(server))
    trainer.train()


if __name__ == "__main__":
    main()
