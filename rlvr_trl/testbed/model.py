"""A language model small enough to learn 4x4 mazes on a CPU, and a tokenizer that knows only the symbols of a task."""

import torch
from transformers import AddedToken, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer


PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
MAZE_SYMBOLS = "\n*.SEUDLR"
TAGS = ("<answer>", "</answer>")
MAX_POSITIONS = 512


def build_tokenizer(symbols: str = MAZE_SYMBOLS) -> Qwen2Tokenizer:
    """
    Builds a tokenizer with one token for each symbol, one for each answer tag, and 3 special ones.

    The default symbols are those of a maze and its moves, 14 tokens in all; a [`Task`] builds its own tokenizer.

    In a folder that holds a Qwen2 model, `AutoTokenizer` overrides the class in the saved tokenizer config with
    [`~transformers.Qwen2Tokenizer`], which keeps only the vocabulary, the merges and the added tokens of
    `tokenizer.json`: a word-level tokenizer would come back without its newlines and tags, and without a warning. So
    this *is* a `Qwen2Tokenizer`. Without merges its byte-level BPE makes one token per character. The tags are added
    tokens, not special ones, because TRL decodes completions with `skip_special_tokens=True` before it scores them.

    There is no chat template, and no token for other characters: they are dropped, as by every byte-level BPE that
    lacks some bytes. Use the prompt style `"bare"` of [`~rlvr_trl.data.make_maze_dataset`].

    Args:
        symbols (`str`, *optional*):
            The characters that prompts and answers are made of: newlines and printable ASCII without the space.

    Returns:
        [`~transformers.Qwen2Tokenizer`]: a tokenizer that pads on the left, as generation needs.
    """
    vocabulary = [PAD, EOS, UNKNOWN, *("Ċ" if symbol == "\n" else symbol for symbol in symbols)]  # Ċ: byte 10
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
    )
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Qwen2ForCausalLM:
    """
    Builds a Qwen2 model of about 160,000 parameters in float32 with random weights.

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its length is the model's vocabulary; its special tokens go into the model and generation configs.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the weights. The global random state is left as it was.

    Returns:
        [`~transformers.Qwen2ForCausalLM`]: the model, on the CPU.
    """
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
