// How long the products of many rows take by themselves. For a GPU; on a double it says nothing.
#pragma once

void print_times();
