// What must not compile. Without MISUSE this does; with one of its numbers it has to fail, for the reason that CMakeLists.txt gives.
#include <pvera.hpp>
#include <string>
#include <vector>

void misuse(const pvera::context &context, const pvera::model &model, const pvera::adapter &adapter, std::vector<float> &values);
void misuse(const pvera::context &context, const pvera::model &model, const pvera::adapter &adapter, std::vector<float> &values) {
    const auto snapshot = model.snapshot();
    const pvera::linear linear = adapter.linear(0);
    context.forward(linear, pvera::as_matrix(values, 1, 2), pvera::as_matrix(values, 1, 2));
#if MISUSE == 1 // freed twice
    const pvera::linear copy = linear;
#elif MISUSE == 2 // the snapshot would be gone before its linear is used
    const auto lent = model.snapshot().linear(0);
#elif MISUSE == 3 // so would the vector
    const auto view = pvera::as_matrix(std::vector<float>(2), 1, 2);
#elif MISUSE == 4 // and the array that the gradients' struct keeps
    pvera::gradients wanted;
    wanted.into({pvera::slot_gradients{0, values.data(), nullptr, nullptr}});
#elif MISUSE == 5 // a store that nobody has
    adapter.store();
#elif MISUSE == 6 // written through a view that is read
    const pvera::matrix x = pvera::as_matrix(values, 1, 2);
    context.forward(linear, x, x);
#elif MISUSE == 7 // no element type of the library
    const std::vector<double> doubles(2);
    const auto view = pvera::as_matrix(doubles, 1, 2);
#elif MISUSE == 8 // a read-only tensor in a struct that cannot say so
    const pvera::matrix x = pvera::as_matrix(values, 1, 2);
    const auto given = pvera::to_dlpack<pvera::dlpack::managed_tensor>(x, 0);
#elif MISUSE == 9 // an error that nobody looks at
    pvera::as_matrix(values, 1, 2);
#elif MISUSE == 10 // the array that the rows' struct keeps would be gone
    pvera::rows whose;
    whose.slots({0});
#elif MISUSE == 11 // and those that a standalone layer borrows
    const pvera::linear_vectors vectors({1, 2}, {1, 2});
#endif
}
