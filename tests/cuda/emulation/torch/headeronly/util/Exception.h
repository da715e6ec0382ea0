// Stands in for torch's header: checks of host code that the kernels' libraries share.
#pragma once

#include <sstream>
#include <stdexcept>

#define STD_TORCH_CHECK(condition, ...)                                   \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::ostringstream text;                                            \
      [&](const auto&... parts) { (text << ... << parts); }(__VA_ARGS__); \
      throw std::runtime_error(text.str());                               \
    }                                                                     \
  } while (false)
