"""A vision-language model of 70,000 parameters and its processor, built from configs. No test reaches for a hub."""

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)


PATCH, MERGE = 4, 2  # pixels of a patch, patches of a token along each side
PAD, START, END = "<pad>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = [PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO]
CHARACTERS = "0123456789+=?. abcdefghijklmnopqrstuvwxyz"
CHAT_TEMPLATE = (
    "{% for message in messages %}" + START + "{{ message['role'] }} "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + VISION_START + IMAGE + VISION_END + "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}" + END + "{% endfor %}"
    "{% if add_generation_prompt %}" + START + "assistant {% endif %}"
)


class ImageTextProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video processor, which needs torchvision."""

    def __init__(self, image_processor, tokenizer, chat_template=None):
        self.image_token, self.image_token_id = IMAGE, tokenizer.convert_tokens_to_ids(IMAGE)
        self.video_token, self.video_token_id = VIDEO, tokenizer.convert_tokens_to_ids(VIDEO)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def build_vision_tokenizer():
    """One token per character, and the special tokens of Qwen2-VL."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, VISION_START, VISION_END, IMAGE, VIDEO],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def build_processor():
    """A processor that makes one token of 8x8 pixels; images are resized to at most 1024 pixels."""
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    return ImageTextProcessor(image_processor, build_vision_tokenizer(), chat_template=CHAT_TEMPLATE)


def build_vision_model(seed=0, sharpness=1.0):
    """Qwen2.5-VL with 2 layers each for images and text, in float32. `sharpness` multiplies the logits."""
    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    text = {
        "vocab_size": len(SPECIAL_TOKENS) + len(CHARACTERS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
        "pad_token_id": ids[PAD],
        "bos_token_id": ids[START],
        "eos_token_id": ids[END],
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness)
        # A placeholder in a completion stands for an image that is not there, and the forward pass fails. A trained
        # model never says one; this one is kept from it.
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(model.lm_head.weight)), requires_grad=False)
        model.lm_head.bias[[ids[token] for token in (VISION_START, VISION_END, IMAGE, VIDEO)]] = -1e4
    return model


def image_prompt(question, *colors, size=(16, 16)):
    """A conversation of one message: a plain image of each color, then the question."""
    images = [{"type": "image", "image": Image.new("RGB", size, color)} for color in colors]
    return [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]
