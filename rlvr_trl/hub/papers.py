"""The papers behind the methods, for the model cards: which to cite, and where the formula of a class is."""

from ..advantages import (
    AGRAE,
    REPO,
    AdaptivePassAtK,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    EntropyShaped,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    NegativeOnly,
    PassAtK,
    PositiveNegativeReinforce,
    Scheduled,
    UniquenessAware,
    Unlikeliness,
    WithoutEasy,
)
from ..rollouts import DARS as DARSAllocator
from ..rollouts import DynamicSampling, KnapsackAllocator, PredictedDARS, ReinforceAda


def paper(arxiv_id: str, title: str, authors: str, key: str) -> dict[str, str]:
    """What TRL's model card needs to know of a paper. The year is that of the arXiv id."""
    fields = {
        "title": f"{{{{{title}}}}}",
        "author": f"{{{authors}}}",
        "year": f"20{arxiv_id[:2]}",
        "eprint": f"{{arXiv:{arxiv_id}}}",
    }
    lines = "".join(f"    {name:<12} = {value},\n" for name, value in fields.items())
    return {"id": arxiv_id, "title": title, "citation": f"@article{{{key},\n{lines}}}"}


GRPO = paper(
    "2402.03300",
    "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    "Zhihong Shao and Peiyi Wang and Qihao Zhu and Runxin Xu and Junxiao Song and Mingchuan Zhang and Y. K. Li and "
    "Y. Wu and Daya Guo",
    "shao2024deepseekmath",
)
DR_GRPO = paper(
    "2503.20783",
    "Understanding R1-Zero-Like Training: A Critical Perspective",
    "Zichen Liu and Changyu Chen and Wenjun Li and Penghui Qi and Tianyu Pang and Chao Du and Wee Sun Lee and Min Lin",
    "liu2025understanding",
)
DAPO = paper(
    "2503.14476",
    "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
    "Qiying Yu and Zheng Zhang and Ruofei Zhu and Yufeng Yuan and Xiaochen Zuo and Yu Yue and Weinan Dai and "
    "Tiantian Fan and Gaohong Liu and Lingjun Liu and others",
    "yu2025dapo",
)
GSPO = paper(
    "2507.18071",
    "Group Sequence Policy Optimization",
    "Chujie Zheng and Shixuan Liu and Mingze Li and Xiong-Hui Chen and Bowen Yu and Chang Gao and Kai Dang and "
    "Yuqiong Liu and Rui Men and An Yang and Jingren Zhou and Junyang Lin",
    "zheng2025gspo",
)
DARS = paper(
    "2508.13755",
    "Depth-Breadth Synergy in RLVR: Unlocking LLM Reasoning Gains with Adaptive Exploration",
    "Zhicheng Yang and Zhijiang Guo and Yinya Huang and Yongxin Wang and Dongchun Xie and Hanhui Li and Yiwei Wang "
    "and Xiaodan Liang and Jing Tang",
    "yang2025dars",
)
PASS_AT_K = paper(
    "2508.10751",
    "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
    "Zhipeng Chen and Xiaobo Qin and Youbin Wu and Yue Ling and Qinghao Ye and Wayne Xin Zhao and Guang Shi",
    "chen2025passatk",
)
A_GRAE = paper(
    "2602.05548",
    "Unveiling Implicit Advantage Symmetry: Why GRPO Struggles with Exploration and Difficulty Adaptation",
    "Zhiqi Yu and Zhangquan Chen and Mengting Liu and Heye Zhang and Liangqiong Qu",
    "yu2026agrae",
)
TWO_STAGE = paper(
    "2510.04028",
    "The Debate on RLVR Reasoning Capability Boundary: Shrinkage, Expansion, or Both? A Two-Stage Dynamic View",
    "Xinhao Yao and Lu Yu and Xiaolin Hu and Fengwei Teng and Qing Cui and Jun Zhou and Yong Liu",
    "yao2025twostage",
)
NEGATIVE_REINFORCEMENT = paper(
    "2506.01347",
    "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning",
    "Xinyu Zhu and Mengzhou Xia and Zhepei Wei and Wei-Lin Chen and Danqi Chen and Yu Meng",
    "zhu2025negative",
)
GRPO_LEAD = paper(
    "2504.09696",
    "GRPO-LEAD: A Difficulty-Aware Reinforcement Learning Approach for Concise Mathematical Reasoning in Language "
    "Models",
    "Jixiao Zhang and Chunsheng Zuo",
    "zhang2025grpolead",
)
KNAPSACK = paper(
    "2509.25849",
    "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation",
    "Ziniu Li and Congliang Chen and Tianyun Yang and Tian Ding and Ruoyu Sun and Ge Zhang and Wenhao Huang and "
    "Zhi-Quan Luo",
    "li2025knapsack",
)
REINFORCE_ADA = paper(
    "2510.04996",
    "Reinforce-Ada: An Adaptive Sampling Framework for Reinforce-Style LLM Training",
    "Wei Xiong and Chenlu Ye and Baohao Liao and Hanze Dong and Xinxing Xu and Christof Monz and Jiang Bian and "
    "Nan Jiang and Tong Zhang",
    "xiong2025reinforceada",
)
UNLIKELINESS = paper(
    "2506.02355",
    "Rewarding the Unlikely: Lifting GRPO Beyond Distribution Sharpening",
    "Andre He and Daniel Fried and Sean Welleck",
    "he2025rewarding",
)
UNIQUENESS = paper(
    "2601.08763",
    "Rewarding the Rare: Uniqueness-Aware RL for Creative Problem Solving in LLMs",
    "Zhiyuan Hu and Yucheng Wang and Yufei He and Jiaying Wu and Yilun Zhao and See-Kiong Ng and Cynthia Breazeal and "
    "Anh Tuan Luu and Hae Won Park and Bryan Hooi",
    "hu2026rewarding",
)
ENTROPY_SHAPED = paper(
    "2506.14758",
    "Reasoning with Exploration: An Entropy Perspective",
    "Daixuan Cheng and Shaohan Huang and Xuekai Zhu and Bo Dai and Wayne Xin Zhao and Zhenliang Zhang and Furu Wei",
    "cheng2025reasoning",
)
ENTROPY_PRESERVING = paper(
    "2603.11682",
    "Entropy-preserving reinforcement learning",
    "Petrenko and others",
    "petrenko2026entropy",
)

# class of an estimator or allocator -> its paper, and its tag on the Hub
_METHODS = {
    GroupRelative: (GRPO, "grpo"),
    PassAtK: (PASS_AT_K, "pass-at-k"),
    ExceedingPassAtK: (PASS_AT_K, "pass-at-k"),
    CombinedPassAtK: (PASS_AT_K, "pass-at-k"),
    AdaptivePassAtK: (PASS_AT_K, "pass-at-k"),
    WithoutEasy: (PASS_AT_K, "pass-at-k"),
    Scheduled: (PASS_AT_K, "pass-at-k"),
    AGRAE: (A_GRAE, "a-grae"),
    DominantSide: (A_GRAE, "a-grae"),
    DifficultyFocused: (A_GRAE, "a-grae"),
    NegativeOnly: (TWO_STAGE, "grpo-n"),
    PositiveNegativeReinforce: (NEGATIVE_REINFORCEMENT, "negative-reinforcement"),
    GRPOLead: (GRPO_LEAD, "grpo-lead"),
    Unlikeliness: (UNLIKELINESS, "unlikeliness-reward"),
    UniquenessAware: (UNIQUENESS, "uniqueness-aware"),
    EntropyShaped: (ENTROPY_SHAPED, "entropy-shaped"),
    REPO: (ENTROPY_PRESERVING, "repo"),
    DARSAllocator: (DARS, "dars"),
    PredictedDARS: (DARS, "dars"),
    DynamicSampling: (DAPO, "dynamic-sampling"),
    KnapsackAllocator: (KNAPSACK, "knapsack-rl"),
    ReinforceAda: (REINFORCE_ADA, "reinforce-ada"),
}


def methods_in(part) -> dict[str, tuple[dict[str, str], str]]:
    """
    The paper and the tag of an estimator or allocator and of those it holds, by class name, outermost first.

    A user's own function has none, nor has an estimator that it holds but does not list in `parts`.
    """
    found = {}
    if type(part) in _METHODS:
        without_deviation = isinstance(part, GroupRelative) and part.scale == "none"
        found[type(part).__name__] = (DR_GRPO, "dr-grpo") if without_deviation else _METHODS[type(part)]
    for inner in getattr(part, "parts", ()):
        found |= {name: method for name, method in methods_in(inner).items() if name not in found}
    return found


def papers_of_loss(loss_type: str, importance_sampling_level: str) -> list[dict[str, str]]:
    """The papers behind TRL's settings of the loss that have one besides GRPO's."""
    papers = {"dapo": [DAPO], "dr_grpo": [DR_GRPO]}.get(loss_type, [])
    return papers + ([GSPO] if importance_sampling_level.startswith("sequence") else [])
