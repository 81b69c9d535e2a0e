"""Sampling with vLLM in this process."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...checks import check_installed
from ...trl_compat import check_private_parts
from ..samples import Sample, SamplingSettings
from .prompts import PromptSurvey, check_engine_prompts, request_seed, survey_prompts, tokenize_prompts


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # ranks that vLLM has kernels for
FINGERPRINT_PIECES, PIECE_BYTES = 64, 64  # of each file of weights


class VLLMEngine:
    """
    Samples with vLLM. Every completion is a separate request with its own seed; vLLM's prefix cache computes the
    prompt once. vLLM does not return the full distribution, so samples have no entropy.

    Prompts are tokenized as in [`TransformersEngine`]. vLLM uses only the EOS tokens of the model's generation config.

    Args:
        model (`str`): a folder, or the id of a model on the Hub.
        adapter (`str`, *optional*): folder of a LoRA adapter for this model.
        chat_template_kwargs (`dict`, *optional*): passed on to the chat template, as in TRL's config.
        options: passed on to `vllm.LLM`, such as `tensor_parallel_size`, `gpu_memory_utilization`, `max_model_len`,
            `dtype` and `revision`.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: `adapter` holds no adapter, or an adapter of a rank that vLLM does not support.
    """

    def __init__(self, model: str, *, adapter: str | None = None, chat_template_kwargs: dict | None = None, **options):
        check_installed("VLLMEngine", "vllm")
        import vllm  # pyrefly: ignore[missing-import]  (not installed where types are checked)
        from vllm.lora.request import LoRARequest  # pyrefly: ignore[missing-import]

        check_private_parts("vllm")
        if adapter is not None:
            options = {"enable_lora": True, "max_lora_rank": _lora_rank(adapter), **options}
        self.vllm, self.llm = vllm, vllm.LLM(model=model, **options)
        self.lora_request = None if adapter is None else LoRARequest("adapter", 1, adapter)
        self.tokenizer = self.llm.get_tokenizer()
        self.model, self.adapter, self.chat_template_kwargs = model, adapter, chat_template_kwargs

    def check(self, prompts: Sequence) -> None:
        check_engine_prompts(prompts, "VLLMEngine takes only text; use TransformersEngine or a server.")
        tokenize_prompts(self.tokenizer, prompts, range(len(prompts)), self.chat_template_kwargs)

    def survey(self, prompts: Sequence, max_new_tokens: int) -> PromptSurvey:
        """How the prompts fit `max_model_len`. `sample` refuses those that do not."""
        tokenized = tokenize_prompts(self.tokenizer, prompts, range(len(prompts)), self.chat_template_kwargs)
        prompt_ids = [prompt.ids for prompt in tokenized.values()]
        longest = self.llm.llm_engine.model_config.max_model_len
        return survey_prompts(prompt_ids, longest, max_new_tokens, self.tokenizer.bos_token_id)

    def sample(
        self, prompts: Sequence, requests: Sequence[tuple[int, int]], settings: SamplingSettings
    ) -> Iterator[list[Sample]]:
        problems = [problem for problem, _ in requests]
        tokenized = tokenize_prompts(self.tokenizer, prompts, problems, self.chat_template_kwargs)
        self._check_lengths(tokenized, settings.max_new_tokens)
        ids = self.llm.enqueue(
            [{"prompt_token_ids": tokenized[problem].ids} for problem in problems],
            [
                self._sampling_params(settings, request_seed(settings.seed, tokenized[problem].digest, sample))
                for problem, sample in requests
            ],
            lora_request=self.lora_request,
            use_tqdm=False,
        )
        # vLLM adds a suffix to the ids that it returns here, but not to those of its outputs
        unfinished = {id.split("-")[0]: request for id, request in zip(ids, requests, strict=True)}
        engine = self.llm.llm_engine
        try:
            while unfinished:  # unlike `LLM.generate`, which returns only when the longest completion has ended
                finished = [output for output in engine.step() if output.finished]
                if finished:
                    yield [self._to_sample(unfinished.pop(output.request_id), output) for output in finished]
        finally:
            if unfinished:
                engine.abort_request(list(unfinished))

    def describe(self) -> dict:
        config = self.llm.llm_engine.model_config
        return {
            "engine": "vllm",
            "vllm": self.vllm.__version__,
            "model": self.model,
            "revision": config.revision,
            "weights": fingerprint_folder(self.model),
            "adapter": self.adapter,
            "adapter_weights": self.adapter and fingerprint_folder(self.adapter),
            "dtype": str(config.dtype).removeprefix("torch."),
            "quantization": config.quantization and str(config.quantization),
            "chat_template_kwargs": self.chat_template_kwargs or {},
        }

    def _check_lengths(self, tokenized: dict, max_new_tokens: int) -> None:
        # vLLM would cut the completion at the end of its context and report it as truncated
        longest = self.llm.llm_engine.model_config.max_model_len
        for problem, prompt in tokenized.items():
            if len(prompt.ids) + max_new_tokens > longest:
                raise ValueError(
                    f"Prompt {problem} has {len(prompt.ids)} tokens, which with max_new_tokens={max_new_tokens} is "
                    f"more than vLLM's max_model_len={longest}."
                )

    def _sampling_params(self, settings: SamplingSettings, seed: int) -> Any:
        return self.vllm.SamplingParams(
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            seed=seed,
            detokenize=False,  # vLLM would do it piece by piece; `_to_sample` decodes the whole
        )

    def _to_sample(self, request: tuple[int, int], output) -> Sample:
        [completion] = output.outputs
        if completion.finish_reason not in ("stop", "length"):
            reason = completion.finish_reason
            raise ValueError(f"vLLM ended a completion with finish_reason={reason!r}; 'stop' or 'length' is needed.")
        token_ids = list(completion.token_ids)
        return Sample(
            *request,
            text=self.tokenizer.decode(token_ids, skip_special_tokens=True),
            token_ids=token_ids,
            length=len(token_ids),
            truncated=completion.finish_reason == "length",
            entropy=None,
        )


def _lora_rank(adapter: str) -> int:
    file = Path(adapter) / "adapter_config.json"
    if not file.exists():
        raise ValueError(f"adapter={adapter!r} has no adapter_config.json; it must be a folder saved by PEFT.")
    rank = json.loads(file.read_text(encoding="utf-8"))["r"]
    if rank > LORA_RANKS[-1]:
        raise ValueError(f"The adapter {adapter!r} has rank {rank}; vLLM takes at most {LORA_RANKS[-1]}.")
    return min(size for size in LORA_RANKS if size >= rank)


def fingerprint_folder(folder: str) -> str | None:
    """Digest of a few bytes from all over each file of weights in a local folder; `None` if it holds no weights."""
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in Path(folder).glob(pattern))
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}/{size}".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(1, size // FINGERPRINT_PIECES)):
                stream.seek(start)
                digest.update(stream.read(PIECE_BYTES))
    return digest.hexdigest() if files else None
