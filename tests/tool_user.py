"""A policy that calls tools: a random model cannot, so its completions are written down. All else is the trainer's."""

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% endif %}"
    "{% if m.tool_calls %}{% for call in m.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


def build_tool_tokenizer():
    """One token per character, with a chat template that has tools and says how to read a call."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
    fast.response_template = RESPONSE_TEMPLATE
    return fast


def build_tool_model(tokenizer):
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def call(a, b) -> str:
    return f'<tool_call>{{"name": "add", "arguments": {{"a": {a}, "b": {b}}}}}</tool_call><|im_end|>'


class CallsTools:
    """
    To be mixed into a trainer. To "3+4" it says, in turns over the rows of a call: a right call of the tool, a wrong
    one, and no call. After a tool has answered it repeats the answer; with `insists`, it calls the tool once more.
    """

    insists = False

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **kwargs):
        said = []
        for row, ids in enumerate(prompt_ids):
            text = self.processing_class.decode(ids)
            a, b = re.findall(r"(\d)\+(\d)", text)[-1]
            answers = re.findall(r"<\|im_start\|>tool\n(.*?)<\|im_end\|>", text)
            if answers and not self.insists:
                said.append(f"it is {answers[-1]}<|im_end|>")
            else:
                said.append([call(a, b), call(b, b), "no idea<|im_end|>"[row % 2 :]][row % 3])
        return [self.processing_class(text)["input_ids"] for text in said], None
