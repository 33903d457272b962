/* Measuring inputs of one kind; see inputs.h. */
#include "inputs.h"

#include <math.h>
#include <stdlib.h>

#include "support.h"

inputs measure(network *net, images set, uint64_t seed) {
    inputs in = {.set = set};
    in.mean_probabilities = allocate(set.count * CLASSES, sizeof(double));
    in.mean_entropy = allocate(set.count, sizeof(double));
    in.first_order = allocate(set.count, sizeof(double));
    in.monte_carlo = allocate(set.count, sizeof(double));
    pvera_noise mean = noise_of(PVERA_MODE_MEAN, 0);
    probabilities_of(net, &in.set, NULL, &mean, in.mean_probabilities);
    in.belief = belief_of(net, &in.set, seed);
    first_order_deviation(net, &in.set, in.belief.choice, in.first_order);
    for (size_t i = 0; i < set.count; i++) {
        in.mean_entropy[i] = entropy(&in.mean_probabilities[i * CLASSES]);
        in.monte_carlo[i] = sqrt(in.belief.logit_variance[i * CLASSES + in.belief.choice[i]]);
    }
    return in;
}

void inputs_free(inputs *in) {
    images_free(&in->set);
    belief_free(&in->belief);
    free(in->mean_probabilities);
    free(in->mean_entropy);
    free(in->first_order);
    free(in->monte_carlo);
}

bool is_right(const inputs *in, size_t image) { return in->belief.choice[image] == in->set.labels[image]; }
