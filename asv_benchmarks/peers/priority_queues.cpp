// Replication and placement with priority queues, one thread.
//
// Our own implementation of the ideas of the MoE load balancer of NVIDIA TensorRT-LLM
// (https://github.com/NVIDIA/TensorRT-LLM, cpp/tensorrt_llm/runtime/moeLoadBalancer):
// the next replica goes to the expert on top of a queue by load / count, and the replicas, the
// heaviest first, go to the GPU on top of a queue by load, which a full GPU leaves.
// Ties go to the lower index and the replicas are in the order in which they were granted, so
// the plans are those of the deepseek policy. Groups are packed to nodes in the same way.

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <queue>
#include <vector>

namespace {

struct Item {
    float load;
    std::int32_t index;
};

struct HeavierFirst {  // strict order: a before b
    bool operator()(const Item& a, const Item& b) const {
        return a.load != b.load ? a.load > b.load : a.index < b.index;
    }
};

// std::priority_queue keeps the last of its order on top.
struct LightestOnTop {
    bool operator()(const Item& a, const Item& b) const {
        return a.load != b.load ? a.load > b.load : a.index > b.index;
    }
};

struct HeaviestOnTop {
    bool operator()(const Item& a, const Item& b) const {
        return a.load != b.load ? a.load < b.load : a.index > b.index;
    }
};

// A priority queue that is refilled without releasing its memory.
template <typename Order>
class Queue : public std::priority_queue<Item, std::vector<Item>, Order> {
public:
    template <typename LoadOf>
    void refill(int size, LoadOf load_of) {
        this->c.clear();
        this->c.reserve(size);
        for (int i = 0; i < size; ++i) this->c.push_back({load_of(i), i});
        std::make_heap(this->c.begin(), this->c.end(), this->comp);
    }
};

class Packer {
public:
    std::vector<int> pack, rank;

    // Gives each load a pack and a rank in it; all packs get equally many.
    void run(const std::vector<float>& loads, int num_packs) {
        const int num_items = static_cast<int>(loads.size());
        const int capacity = num_items / num_packs;
        pack.resize(num_items);
        rank.resize(num_items);
        if (capacity == 1) {
            std::iota(pack.begin(), pack.end(), 0);
            std::fill(rank.begin(), rank.end(), 0);
            return;
        }
        order_.clear();
        order_.reserve(num_items);
        for (int i = 0; i < num_items; ++i) order_.push_back({loads[i], i});
        std::sort(order_.begin(), order_.end(), HeavierFirst{});
        held_.assign(num_packs, 0);
        queue_.refill(num_packs, [](int) { return 0.0f; });
        for (const Item& item : order_) {
            const Item lightest = queue_.top();
            queue_.pop();
            pack[item.index] = lightest.index;
            rank[item.index] = held_[lightest.index]++;
            if (held_[lightest.index] < capacity)
                queue_.push({lightest.load + item.load, lightest.index});
        }
    }

private:
    std::vector<Item> order_;
    std::vector<int> held_;
    Queue<LightestOnTop> queue_;
};

class Replicator {
public:
    std::vector<int> expert, rank, count;

    // Names the expert of each replica, and which of the expert's replicas it is.
    void run(const std::vector<float>& loads, int num_replicas) {
        const int num_experts = static_cast<int>(loads.size());
        expert.resize(num_replicas);
        rank.resize(num_replicas);
        count.assign(num_experts, 1);
        std::iota(expert.begin(), expert.begin() + num_experts, 0);
        std::fill(rank.begin(), rank.begin() + num_experts, 0);
        if (num_replicas == num_experts) return;
        queue_.refill(num_experts, [&](int e) { return loads[e]; });
        for (int i = num_experts; i < num_replicas; ++i) {
            const int neediest = queue_.top().index;
            queue_.pop();
            expert[i] = neediest;
            rank[i] = count[neediest]++;
            queue_.push({loads[neediest] / static_cast<float>(count[neediest]), neediest});
        }
    }

private:
    Queue<HeaviestOnTop> queue_;
};

}  // namespace

// weight [L, E]; out: phy2log [L, P], logcnt [L, E] and, unless null, phyrank [L, P].
extern "C" void plan_layers(const float* weight, std::int64_t num_layers, int num_experts,
                            int num_replicas, int num_groups, int num_nodes, int num_gpus,
                            std::int64_t* phy2log, std::int64_t* phyrank, std::int64_t* logcnt) {
    const int group_size = num_experts / num_groups;
    const int node_groups = num_groups / num_nodes;
    const int node_experts = num_experts / num_nodes;
    const int node_replicas = num_replicas / num_nodes;
    const int gpu_slots = num_replicas / num_gpus;

    Packer group_packer, replica_packer;
    Replicator replicator;
    std::vector<float> group_load(num_groups), node_load(node_experts), average(node_experts),
        replica_load(node_replicas);
    std::vector<int> group_at(num_groups), expert_of(node_experts);

    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
        for (int g = 0; g < num_groups; ++g) {
            const float* first = weight + g * group_size;
            group_load[g] = static_cast<float>(std::accumulate(first, first + group_size, 0.0));
        }
        group_packer.run(group_load, num_nodes);
        for (int g = 0; g < num_groups; ++g)
            group_at[group_packer.pack[g] * node_groups + group_packer.rank[g]] = g;

        for (int node = 0; node < num_nodes; ++node) {
            for (int e = 0; e < node_experts; ++e) {
                const int group = group_at[node * node_groups + e / group_size];
                expert_of[e] = group * group_size + e % group_size;
                node_load[e] = weight[expert_of[e]];
            }
            replicator.run(node_load, node_replicas);
            for (int e = 0; e < node_experts; ++e) {
                average[e] = node_load[e] / static_cast<float>(replicator.count[e]);
                logcnt[expert_of[e]] = replicator.count[e];
            }
            for (int i = 0; i < node_replicas; ++i)
                replica_load[i] = average[replicator.expert[i]];
            replica_packer.run(replica_load, num_gpus / num_nodes);
            for (int i = 0; i < node_replicas; ++i) {
                const int slot = node * node_replicas + replica_packer.pack[i] * gpu_slots +
                                 replica_packer.rank[i];
                phy2log[slot] = expert_of[replicator.expert[i]];
                if (phyrank) phyrank[slot] = replicator.rank[i];
            }
        }
        weight += num_experts;
        logcnt += num_experts;
        phy2log += num_replicas;
        if (phyrank) phyrank += num_replicas;
    }
}

// log2phy [L, E, width], filled with -1 beforehand.
extern "C" void fill_log2phy(const std::int64_t* phy2log, const std::int64_t* phyrank,
                             std::int64_t num_layers, std::int64_t num_experts,
                             std::int64_t num_replicas, std::int64_t width,
                             std::int64_t* log2phy) {
    for (std::int64_t layer = 0; layer < num_layers; ++layer) {
        for (std::int64_t slot = 0; slot < num_replicas; ++slot)
            log2phy[phy2log[slot] * width + phyrank[slot]] = slot;
        phy2log += num_replicas;
        phyrank += num_replicas;
        log2phy += num_experts * width;
    }
}
