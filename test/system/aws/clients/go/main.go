package main

import (
	"context"
	"errors"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
	Fail bool   `json:"fail"`
}

func handle(ctx context.Context, in event) (map[string]string, error) {
	if in.Fail {
		return nil, errors.New("as asked")
	}
	told, _ := lambdacontext.FromContext(ctx)
	return map[string]string{
		"hello":   in.Name,
		"arn":     told.InvokedFunctionArn,
		"version": lambdacontext.FunctionVersion,
	}, nil
}

func main() { lambda.Start(handle) }
