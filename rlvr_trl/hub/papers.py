"""The papers behind the methods, for the model cards: which to cite, and where the formula of a class is."""

from ..advantages import (
    AGRAE,
    FGRPO,
    PKPO,
    REPO,
    RSGRPO,
    AdaptivePassAtK,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    EntropyShaped,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    NegativeOnly,
    PassAtK,
    PassRateObjective,
    PerPromptMean,
    PositiveNegativeReinforce,
    ReinforcePlusPlus,
    Scheduled,
    TrainingGroup,
    UniquenessAware,
    Unlikeliness,
    WithoutEasy,
)
from ..rollouts import DARS as DARSAllocator
from ..rollouts import (
    DynamicSampling,
    KnapsackAllocator,
    PredictedDARS,
    ReinforceAda,
    ReinforceAdaEst,
    VarianceOptimalAllocator,
)


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
MAX_RL = paper(
    "2602.02710",
    "Maximum Likelihood Reinforcement Learning",
    "Fahim Tajwar and Guanning Zeng and Yueer Zhou and Yuda Song and Daman Arora and Yiding Jiang and Jeff Schneider "
    "and Ruslan Salakhutdinov and Haiwen Feng and Andrea Zanette",
    "tajwar2026maxrl",
)
RS_GRPO = paper(
    "2509.24261",
    "Risk-Sensitive RL for Alleviating Exploration Dilemmas in Large Language Models",
    "Yuhua Jiang and Jiawei Huang and Yufeng Yuan and Xin Mao and Yu Yue and Qianchuan Zhao and Lin Yan",
    "jiang2025risk",
)
F_GRPO = paper(
    "2602.06717",
    "F-GRPO: Don't Let Your Policy Learn the Obvious and Forget the Rare",
    "Daniil Plyusov and Alexey Gorbatovski and Boris Shaposhnikov and Viacheslav Sinii and Alexey Malakhov and "
    "Daria Korotyshova and Daniil Gavrilov",
    "plyusov2026fgrpo",
)
PASS_AT_K_POLICY_OPTIMIZATION = paper(
    "2505.15201",
    "Pass@K Policy Optimization: Solving Harder Reinforcement Learning Problems",
    "Christian Walder and Deep Karkhanis",
    "walder2025pkpo",
)
MAX_AT_K = paper(
    "2510.23393",
    "The Best of N Worlds: Aligning Reinforcement Learning with Best-of-N Sampling via max@k Optimisation",
    "Farid Bagirov and Mikhail Arkhipov and Ksenia Sycheva and Evgeniy Glukhov and Egor Bogomolov",
    "bagirov2025best",
)
RLOO = paper(
    "2402.14740",
    "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback in LLMs",
    "Arash Ahmadian and Chris Cremer and Matthias Gallé and Marzieh Fadaee and Julia Kreutzer and Olivier Pietquin "
    "and Ahmet Üstün and Sara Hooker",
    "ahmadian2024back",
)
REINFORCE_PLUS_PLUS = paper(
    "2501.03262",
    "REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Advantage Normalization",
    "Jian Hu and Jason Klein Liu and Haotian Xu and Wei Shen",
    "hu2025reinforce",
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
    "Reinforce-Ada: An Adaptive Sampling Framework under Non-linear RL Objectives",
    "Wei Xiong and Chenlu Ye and Baohao Liao and Hanze Dong and Xinxing Xu and Christof Monz and Jiang Bian and "
    "Nan Jiang and Tong Zhang",
    "xiong2025reinforceada",
)
VIP = paper(
    "2602.01601",
    "Adaptive Rollout Allocation for Online Reinforcement Learning with Verifiable Rewards",
    "Hieu Trung Nguyen and Bao Nguyen and Wenao Ma and Yuzhi Zhao and Ruifeng She and Viet Anh Nguyen",
    "nguyen2026vip",
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
    "Entropy-Preserving Reinforcement Learning",
    "Aleksei Petrenko and Ben Lipkin and Kevin Chen and Erik Wijmans and Marco Cusumano-Towner and Raja Giryes and "
    "Philipp Krähenbühl",
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
    PerPromptMean: (GRPO, "grpo"),
    PassRateObjective: (REINFORCE_ADA, "reinforce-ada"),
    TrainingGroup: (REINFORCE_ADA, "reinforce-ada"),
    MaxRL: (MAX_RL, "maxrl"),
    RSGRPO: (RS_GRPO, "rs-grpo"),
    FGRPO: (F_GRPO, "f-grpo"),
    PKPO: (PASS_AT_K_POLICY_OPTIMIZATION, "pkpo"),
    MaxAtK: (MAX_AT_K, "max-at-k"),
    LeaveOneOut: (RLOO, "rloo"),
    ReinforcePlusPlus: (REINFORCE_PLUS_PLUS, "reinforce-plus-plus"),
    Unlikeliness: (UNLIKELINESS, "unlikeliness-reward"),
    UniquenessAware: (UNIQUENESS, "uniqueness-aware"),
    EntropyShaped: (ENTROPY_SHAPED, "entropy-shaped"),
    REPO: (ENTROPY_PRESERVING, "repo"),
    DARSAllocator: (DARS, "dars"),
    PredictedDARS: (DARS, "dars"),
    DynamicSampling: (DAPO, "dynamic-sampling"),
    KnapsackAllocator: (KNAPSACK, "knapsack-rl"),
    ReinforceAda: (REINFORCE_ADA, "reinforce-ada"),
    ReinforceAdaEst: (REINFORCE_ADA, "reinforce-ada"),
    VarianceOptimalAllocator: (VIP, "variance-optimal"),
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
