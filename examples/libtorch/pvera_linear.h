// A PVeRA layer as a module of libtorch. Its parameters, its base weight, its inputs, outputs and gradients are tensors
// of libtorch, which pvera reads and writes where they lie.
#ifndef PVERA_LINEAR_H
#define PVERA_LINEAR_H

#include <pvera.h>
#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <string>

// Throws what the library says, as libtorch's own errors are thrown.
void check_pvera(pvera_error *error);

// A context whose work runs on libtorch's threads.
std::shared_ptr<pvera_context> make_context();

// A and B of a projection_prng_key.
std::shared_ptr<pvera_store> make_store(uint64_t key, size_t rank, size_t in_max, size_t out_max);

// Whose noise a forward draws: row i of identities is row i of x (flattened); the same numbers give the same noise.
struct Draw {
    int32_t mode = PVERA_MODE_SAMPLE; // PVERA_MODE_…
    uint64_t seed = 0;
    uint32_t sample = 0;      // the step, in training
    torch::Tensor identities; // int64, or undefined: 0, 1, 2, …
};

// y = x Wᵀ + bias + λ_b ∘ (z Bᵀ), with W and bias frozen (of whatever strides: what does not lie in rows is copied). It
// borrows the memory of its parameters: move it (.to(…)) before the first forward; afterwards forward throws.
class PveraLinearImpl : public torch::nn::Module {
  public:
    PveraLinearImpl(std::string name, torch::Tensor weight, torch::Tensor bias, std::shared_ptr<pvera_store> store,
                    std::shared_ptr<pvera_context> context);

    // x [..., in] of float. Differentiable once: backward with create_graph throws. kl_weight adds
    // kl_weight · KL(latents ‖ N(0, 1)), averaged over rows and latents, to whatever is differentiated: the gradients
    // have it, the value of the loss has not.
    torch::Tensor forward(const torch::Tensor &x, const Draw &draw, double kl_weight = 0);

    torch::Tensor lambda_b, lambda_d; // the parameters: [out], [2 rank]

  private:
    void lend_parameters();

    std::string name_;
    torch::Tensor weight_, bias_;
    std::shared_ptr<pvera_store> store_;
    std::shared_ptr<pvera_context> context_;
    std::shared_ptr<pvera_linear> linear_;
    const float *lent_b_ = nullptr, *lent_d_ = nullptr;
};
TORCH_MODULE(PveraLinear);

#endif
