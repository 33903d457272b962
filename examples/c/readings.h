/* Six single readings, each with its interval. */
#ifndef READINGS_H
#define READINGS_H

#include "inputs.h"
#include "picture.h"

/* Chooses and prints them, and puts them into the picture. */
void report_readings(const inputs kind[KINDS], picture *results);

#endif
