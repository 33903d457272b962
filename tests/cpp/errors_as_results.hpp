// What the two translation units of test_errors share: neither knows how the other is told of errors.
#pragma once

#include <pvera.hpp>
#include <string>
#include <utility>
#include <vector>

std::vector<std::pair<pvera::code, std::string>> failures_as_results();
